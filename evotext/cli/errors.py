"""Mistakes in the configuration, and the exit statuses of every command."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pydantic

from evotext.cli.messages import explain_validation, one_line, own_check

BAD_CONFIGURATION, FAILED, INTERRUPTED = 2, 1, 130


class ConfigError(ValueError):
    """A mistake in the configuration; its text is one line for the user."""


@contextmanager
def configuration(place: str = "", values: Mapping[Any, object] | None = None) -> Iterator[None]:
    """Turn a ValueError within the block into a ConfigError; `place` says which values are to blame (`placed`)."""
    try:
        yield
    except ConfigError:
        raise
    except pydantic.ValidationError as error:
        own = own_check(error)
        if own:
            raise ConfigError(placed(one_line(str(own)), place, values or {})) from error
        key = str(next(iter(error.errors()[0]["loc"]), ""))
        above = _above(key, values or {}) if place else None
        raise ConfigError(explain_validation(error, ".".join([place, *(above or [])]))) from error
    except ValueError as error:
        raise ConfigError(placed(one_line(str(error)), place, values or {})) from error


def placed(message: str, place: str, values: Mapping[Any, object]) -> str:
    """Return the message of an object that was made of the values at `place` with that place before it.

    Code names its own arguments: `population: expected an even number` becomes `algorithm.population: expected ...`, and
    the argument of a part that the object has made is found below.
    """
    key = message.partition(":")[0]
    if not place or f"{key}.".startswith(f"{place}."):
        return message
    above = _above(key.partition(".")[0], values)
    return f"{place}: {message}" if above is None else ".".join([place, *above, message])


def _above(key: str, values: Mapping[Any, object]) -> list[str] | None:
    """Return the keys that lead to the group with this key; None if it is nowhere below."""
    if key in values:
        return []
    for name, value in values.items():
        if isinstance(value, Mapping) and (above := _above(key, value)) is not None:
            return [str(name), *above]
    return None

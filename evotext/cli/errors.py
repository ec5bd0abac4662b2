"""Mistakes in the configuration, and the exit statuses of every command."""

from collections.abc import Container, Iterator
from contextlib import contextmanager

import pydantic

from evotext.cli.messages import explain_validation, one_line, own_check

BAD_CONFIGURATION, FAILED, INTERRUPTED = 2, 1, 130


class ConfigError(ValueError):
    """A mistake in the configuration; its text is one line for the user."""


@contextmanager
def configuration(place: str = "", keys: Container[str] = ()) -> Iterator[None]:
    """Within it, a ValueError is the configuration's fault. place, keys: see `placed`."""
    try:
        yield
    except ConfigError:
        raise
    except pydantic.ValidationError as error:
        own = own_check(error)
        line = placed(one_line(str(own)), place, keys) if own else explain_validation(error, place)
        raise ConfigError(line) from error
    except ValueError as error:
        raise ConfigError(placed(one_line(str(error)), place, keys)) from error


def placed(message: str, place: str, keys: Container[str]) -> str:
    """Return the message of an object that was made from the keys at `place` with that place before it.

    Code names its own arguments: `population: expected an even number` becomes `algorithm.population: expected ...`.
    """
    key = message.partition(":")[0]
    if not place or f"{key}.".startswith(f"{place}."):
        return message
    return f"{place}.{message}" if key.partition(".")[0] in keys else f"{place}: {message}"

"""Mistakes in the configuration, and making things of it in a way that finds them."""

import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

import pydantic
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from evotext.cli.messages import explain, explain_validation, first_cause, one_line, own_check, shown


class ConfigError(ValueError):
    """A mistake in the configuration; its text is one line for the user."""


@contextmanager
def configuration() -> Iterator[None]:
    """Within it, a ValueError is the configuration's fault."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(one_line(str(error))) from error


def placed(message: str, place: str, keys: Container[str]) -> str:
    """The message of an object that was made from the keys at `place`, with the place in the configuration before it.

    Code names its own arguments: `population: expected an even number` becomes `algorithm.population: expected ...`.
    """
    key = message.partition(":")[0]
    if f"{key}.".startswith(f"{place}."):
        return message
    return f"{place}.{message}" if key.partition(".")[0] in keys else f"{place}: {message}"


def build(config: DictConfig, path: str) -> Any:
    """Instantiate the node at `path` (its `_target_` with its keys). Raises ConfigError for whatever is wrong with it."""
    node = OmegaConf.select(config, path)
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise ConfigError(f"{path}: expected a group of keys with a _target_, got {shown(node)}")
    try:
        return instantiate(node, _convert_="all")
    except ConfigError:
        raise
    except (HydraException, OmegaConfBaseException) as error:
        cause = first_cause(error)
        where = re.search(r"full_key: (\S+)", str(error))
        place = where.group(1) if where else path
        if isinstance(cause, pydantic.ValidationError):
            cause = own_check(cause) or cause
        if isinstance(cause, pydantic.ValidationError):
            raise ConfigError(explain_validation(cause, place)) from error
        if isinstance(cause, ValueError):
            raise ConfigError(one_line(placed(str(cause), place, OmegaConf.select(config, place)))) from error
        if isinstance(cause, ImportError):  # of an optional package: it says what to install
            raise ConfigError(f"{place}: {one_line(str(cause))}") from error
        if isinstance(cause, OmegaConfBaseException):
            raise ConfigError(explain(error)) from error
        raise ConfigError(f"{place}: {type(cause).__name__} {one_line(str(cause))}".rstrip()) from error

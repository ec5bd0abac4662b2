"""One line for every configuration mistake: what was expected, what came, what to change."""

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pydantic
from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

# Where a `_target_` may point without leave: configuration is data, and data should not reach any class there is.
TRUSTED = ("evotext.", "envs.", "optimizers.", "baselines.", "torch.optim.")


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


def build(config: DictConfig, path: str) -> Any:
    """Instantiate the node at `path` (its `_target_` with its keys). Raises ConfigError for whatever is wrong with it."""
    node = OmegaConf.select(config, path)
    try:
        return instantiate(node, _convert_="all")
    except MissingMandatoryValue as error:
        raise ConfigError(explain(error)) from error
    except (HydraException, OmegaConfBaseException) as error:
        cause = _root(error)
        if isinstance(cause, pydantic.ValidationError):
            raise ConfigError(_explain_validation(cause, path, node)) from error
        if isinstance(cause, ValueError):
            raise ConfigError(one_line(str(cause))) from error
        raise ConfigError(f"{path}: {one_line(str(cause))}") from error


def check_targets(config: DictConfig) -> None:
    """Refuse a `_target_` outside the project unless the configuration says `allow_custom_targets=true`."""
    if config.get("allow_custom_targets", False):
        return
    for path, target in _targets(OmegaConf.to_container(config, resolve=False), ""):
        if not target.startswith(TRUSTED):
            raise ConfigError(
                f"{path}: expected a class of {', '.join(t.rstrip('.') for t in TRUSTED)}, got {target!r}; "
                "to use your own classes add allow_custom_targets=true"
            )


def check_known(config: DictConfig, known: Iterable[str]) -> None:
    """Refuse keys at the root that nothing reads."""
    for key in map(str, config):
        if key not in known:
            raise ConfigError(f"expected a known key, got {key!r}{near(key, known)}")


def explain(error: BaseException) -> str:
    """One line for an error of Hydra or OmegaConf."""
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, OverrideParseException):
        return f"expected key=value, got {error.override!r}: {one_line(error.message)}"
    if isinstance(error, MissingConfigException):
        return _explain_missing_config(error)
    cause = _root(error)
    if isinstance(cause, MissingMandatoryValue):
        found = re.search(r"mandatory value: (\S+)", str(cause))
        key = cause.full_key or (found.group(1) if found else "a value")
        return f"{key}: expected a value, got none; add {key}=..."
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        key = cause.full_key or str(cause.key)
        head, _, last = key.rpartition(".")
        known = [str(k) for k in cause.parent_node] if isinstance(cause.parent_node, DictConfig) else []
        return f"{head or 'configuration'}: expected a known key, got {last!r}{near(last, known)}"
    if isinstance(cause, InterpolationKeyError | InterpolationResolutionError):
        return f"{cause.full_key}: {one_line(str(cause)).split(' full_key')[0]}"
    return one_line(str(cause)).split(" full_key:")[0]


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with the closest known words, or what there is to choose from."""
    names = sorted(name for name in known if not name.startswith("_"))
    close = difflib.get_close_matches(word, names, n=2)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; known: {', '.join(names)}" if names else ""


def one_line(text: str) -> str:
    """White space of any kind becomes a single space."""
    return " ".join(text.split())


def _explain_missing_config(error: MissingConfigException) -> str:
    name = error.missing_cfg_file or ""
    group, _, choice = name.rpartition("/")
    if error.options is None:
        return one_line(str(error))
    options = [option.removeprefix(group + "/") for option in error.options]
    listed = f" (there are {', '.join(sorted(options))})"
    return f"{group}: expected the name of a configuration, got {choice!r}{near(choice, options)}{listed}"


def _explain_validation(error: pydantic.ValidationError, path: str, node: DictConfig) -> str:
    first = error.errors()[0]
    key = ".".join([path, *map(str, first["loc"])])
    last = str(first["loc"][-1]) if first["loc"] else path
    if first["type"] == "unexpected_keyword_argument":
        known = inspect.signature(get_object(node["_target_"])).parameters
        return f"{path}: expected a known key, got {last!r}{near(last, known)}"
    if first["type"].startswith("missing"):
        return f"{key}: expected a value, got none; add {key}=..."
    expectation = re.sub(r"^(Input|Value error,?) ?(should be )?", "", first["msg"])
    rest = f"; and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{key}: expected {one_line(expectation)}, got {_shown(first['input'])}{rest}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _root(error: BaseException) -> BaseException:
    """The first error of a chain that says something itself."""
    while error.__cause__ is not None and (
        isinstance(error, InstantiationException)
        or not str(error)
        or isinstance(error.__cause__, OmegaConfBaseException)
    ):
        error = error.__cause__
    return error


def _targets(node: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            here = f"{path}.{key}" if path else str(key)
            if key == "_target_":
                yield here, str(value)
            elif here != "hydra":
                yield from _targets(value, here)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _targets(value, f"{path}[{i}]")

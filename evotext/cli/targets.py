"""`_target_`s: those that may be named, checks of the keys beside them, and the objects that they make."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Set
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from evotext.cli.errors import ConfigError, configuration
from evotext.cli.messages import near, no_value, one_line, shown, unknown_key
from evotext.folders import SHORT_NAMES, is_own

# Modules that a `_target_` may name without permission: configuration is data, and data should not reach every class.
TRUSTED = ("evotext", *SHORT_NAMES, "torch.optim")
# Keys that are not arguments: Hydra's own, and the values that a head-to-head tries.
_RESERVED = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_", "_search_"}


def build(config: DictConfig, path: str) -> Any:
    """Make the object that the keys at `path` describe, its parts first. Raise ConfigError for whatever is wrong with them."""
    node = OmegaConf.select(config, path)
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise ConfigError(f"{path}: expected a group of keys with a _target_, got {shown(node)}")
    return _make(OmegaConf.to_container(node, resolve=True), path)


def task_at(config: DictConfig, key: str, value: object) -> Any:
    """Return the task that the configuration describes with another value of one of its keys. Raise ConfigError."""
    known = OmegaConf.to_container(config.env, resolve=True)
    for name in key.split(".")[1:]:
        known = known.get(name) if isinstance(known, dict) else None
    if not key.startswith("env.") or known is None:
        raise ConfigError(f"curriculum.key: expected a key of the task that has a value, env.NAME, got {shown(key)}")
    changed = config.copy()
    OmegaConf.update(changed, key, value)
    return build(changed, "env")


def _make(node: Any, place: str) -> Any:
    if isinstance(node, list):
        return [_make(value, f"{place}[{i}]") for i, value in enumerate(node)]
    if not isinstance(node, dict):
        return node
    recursive = node.get("_recursive_", True)
    made = {key: _make(value, f"{place}.{key}") if recursive else value for key, value in node.items()}
    if "_target_" not in node:
        return made
    target, positional = locate(node["_target_"], place), made.get("_args_", [])
    options = {key: value for key, value in made.items() if key not in _RESERVED}
    if node.get("_partial_"):
        return partial(target, *positional, **options)
    try:
        with configuration(place, node):
            return target(*positional, **options)
    except ConfigError:
        raise
    except ImportError as error:  # of an optional package: it says what to install
        raise ConfigError(f"{place}: {one_line(str(error))}") from error
    except Exception as error:
        raise ConfigError(f"{place}: {type(error).__name__} {one_line(str(error))}".rstrip()) from error


def locate(target: str, place: str) -> Callable[..., object]:
    """Import what a `_target_` names. Raise ConfigError if there is no such thing, or nothing that can be called."""
    try:
        found = pkgutil.resolve_name(target)
    except Exception as error:  # importing a module can raise anything
        module, _, name = target.rpartition(".")
        try:
            advice = near(name, _own_names(module))
        except Exception:
            advice = f": {one_line(str(error))}"
        raise ConfigError(f"{place}._target_: expected something importable, got {target!r}{advice}") from error
    if not callable(found):
        raise ConfigError(f"{place}._target_: expected a class or function, got {target!r}")
    return found


def _own_names(module: str) -> list[str]:
    """Return the classes and functions of a module that its own project defines."""
    found = importlib.import_module(module)
    project = found.__name__.partition(".")[0]
    return [
        n for n, value in vars(found).items() if callable(value) and f"{value.__module__}.".startswith(f"{project}.")
    ]


def check_targets(values: object, leave: Set[str] | None = frozenset()) -> None:
    """Raise ConfigError unless every `_target_` below is the project's or among `leave` and takes the keys beside it.

    leave: None lets every target pass.
    """
    for place, node in targets(values):
        for key in ("_partial_", "_recursive_"):
            if not isinstance(node.get(key, True), bool):
                raise ConfigError(f"{place}.{key}: expected true or false, got {shown(node[key])}")
        _check_keys(place, node, _trusted(place, node["_target_"], leave))


def targets(node: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every group of keys with a `_target_`, with its place."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield place, node
        for key, value in node.items():
            yield from targets(value, f"{place}.{key}" if place else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from targets(value, f"{place}[{i}]")


def _trusted(place: str, target: object, leave: Set[str] | None) -> Callable[..., object]:
    """Return the target if it was defined where targets may be: `evotext.models.tiny.json.dump` was not."""
    refusal = (
        f"{place}._target_: expected a class or function of {', '.join(TRUSTED)}, got {shown(target)}; to use your own, "
        "name it in a file under --config-dir or add allow_custom_targets=true"
    )
    if not isinstance(target, str):
        raise ConfigError(refusal)
    allowed = leave is None or target in leave
    if not allowed and not target.startswith(tuple(f"{name}." for name in TRUSTED)):
        raise ConfigError(refusal)
    found = locate(target, place)
    module = str(getattr(found, "__module__", ""))
    if not allowed and not is_own(module) and not f"{module}.".startswith("torch.optim."):
        raise ConfigError(refusal)
    return found


def _check_keys(place: str, node: Mapping[str, object], target: Callable[..., object]) -> None:
    """Raise ConfigError for a key that the target does not take, or for one that it needs and that is missing."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return  # some built-in callables have no signature
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = {p.name for p in named}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for key in node.keys() - _RESERVED - names:
            raise ConfigError(unknown_key(place, key, names))
    if not node.get("_partial_") and "_args_" not in node:
        for parameter in named:
            if parameter.default is parameter.empty and parameter.name not in node:
                raise ConfigError(no_value(f"{place}.{parameter.name}"))

"""What is checked of a composed configuration before anything is made of it."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pydantic
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, Field, TypeAdapter

from evotext.cli.errors import ConfigError
from evotext.cli.messages import (
    explain,
    explain_validation,
    near,
    no_value,
    one_line,
    shown,
    unknown_key,
)
from evotext.run_folder.schema import Phase
from evotext.validation import PositiveInt

# Where a `_target_` may point without leave: configuration is data, and data should not reach any class there is.
TRUSTED = ("evotext.", "envs.", "optimizers.", "baselines.", "torch.optim.")
# More than any machine has; with many more the libraries below fail to start theirs, each in its own way.
MOST_THREADS = 1024
# Settings of a whole run that are no group's business.
SETTINGS: Mapping[str, Any] = {
    "seed": Annotated[int, Field(ge=0, lt=2**63)],  # keys of the random streams have 64 bits
    "device": str,
    "threads": Annotated[int, Field(ge=1, le=MOST_THREADS)] | None,
    "rows": PositiveInt | None,
    "cuda_graphs": bool,
    "phase": Phase,
    "resume": str | None,
    "debug": bool,
    "allow_custom_targets": bool,
}
_RESERVED = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}


@dataclass(frozen=True, kw_only=True)
class Root:
    """What a primary configuration has at its root."""

    keys: frozenset[str]
    """Its own keys and its groups."""
    groups: frozenset[str]
    """Those that a choice fills."""
    optional: frozenset[str]
    """Groups that may stay without a choice."""

    @classmethod
    def read(cls, file: Path) -> "Root":
        """The root of this file; an empty one if there is no such file, which Hydra reports itself."""
        config = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
        chosen: dict[str, object] = {}
        for entry in config.get("defaults", []):
            if isinstance(entry, dict):
                chosen |= {_place(key): choice for key, choice in entry.items() if "override " not in key}
        own = config.keys() - {"defaults"}
        return cls(
            keys=frozenset(own | chosen.keys()),
            groups=frozenset(chosen),
            optional=frozenset(group for group, choice in chosen.items() if choice is None),
        )


def _place(key: str) -> str:
    """Where in the configuration the choice of a defaults list goes: `optional group`, `group@place`."""
    group, _, place = key.removeprefix("optional ").partition("@")
    return place or group


def check_choices(words: Iterable[str], root: Root) -> None:
    """Raise ConfigError for what Hydra refuses without a name: an override without a key, a choice that is no name."""
    for word in words:
        key, equals, value = word.partition("=")
        key = key.lstrip("+")
        if equals and not key:
            raise ConfigError(f"expected key=value, got {word!r}")
        if (
            equals
            and key in root.groups | {"hydra"}
            and re.fullmatch(r"null|true|false|[-+]?[\d.e]+", value, re.IGNORECASE)
        ):
            raise ConfigError(f"{key}: expected the name of a configuration, got {value}")


def check(config: DictConfig, root: Root) -> None:
    """Raise ConfigError unless every key is known, every value is there, and every `_target_` is trusted."""
    _check_paths()
    for key in map(str, config):
        if key not in root.keys:
            raise ConfigError(unknown_key("", key, {*root.keys, "replay"} - {"hydra"}))
    for key in sorted(root.keys - root.optional - {"hydra"}):
        if key not in config:
            raise ConfigError(f"{key}: expected {'a choice' if key in root.groups else 'a value'}, got none")
    for key in sorted(root.groups):
        if key in config and not isinstance(config._get_node(key), DictConfig):
            raise ConfigError(f"{key}: expected the name of a configuration, got {shown(config[key])}")
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ConfigError(no_value(missing[0]))
    try:
        values = OmegaConf.to_container(config, resolve=True)
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(values, dict)
    _check_settings(values)
    leave = None if values.get("allow_custom_targets") else _named_by_user()
    check_targets(values, leave)


def check_targets(values: object, leave: Set[str] | None = frozenset()) -> None:
    """Raise ConfigError unless every `_target_` below is the project's or among `leave` and takes the keys beside it.

    leave: None lets every target pass.
    """
    for path, node in _targets(values, ""):
        for key in ("_partial_", "_recursive_"):
            if not isinstance(node.get(key, True), bool):
                raise ConfigError(f"{path}.{key}: expected true or false, got {shown(node[key])}")
        _check_target(path, node["_target_"], leave)
        _check_keys(path, node)


def _check_paths() -> None:
    """A choice is a name within its group: a path would bring in a file of another group."""
    for group, choice in HydraConfig.get().runtime.choices.items():
        if ".." in str(choice).split("/"):
            raise ConfigError(f"{group}: expected the name of a configuration, got {choice!r}")


def _check_settings(values: Mapping[Any, object]) -> None:
    for key, kind in SETTINGS.items():
        if key in values:
            try:
                TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python(values[key])
            except pydantic.ValidationError as error:
                raise ConfigError(explain_validation(error, key)) from error


def _check_target(path: str, target: object, leave: Set[str] | None) -> None:
    """Raises ConfigError for a `_target_` that is not there, or that is neither the project's nor among `leave`.

    What counts is where the object was defined: `evotext.models.tiny.json.dump` is no part of the project.
    """
    listed = ", ".join(prefix.rstrip(".") for prefix in TRUSTED)
    refusal = (
        f"{path}._target_: expected a class or function of {listed}, got {shown(target)}; to use your own, "
        "name it in a file under --config-dir or add allow_custom_targets=true"
    )
    allowed = isinstance(target, str) and (leave is None or target in leave)
    if not isinstance(target, str) or not (allowed or target.startswith(TRUSTED)):
        raise ConfigError(refusal)
    found = _locate(path, target)
    if not allowed and not f"{getattr(found, '__module__', '')}.".startswith(TRUSTED):
        raise ConfigError(refusal)


def _check_keys(path: str, node: Mapping[str, object]) -> None:
    """The node's keys against the signature that they go to. Raises ConfigError for one too many or too few."""
    try:
        parameters = inspect.signature(_locate(path, str(node["_target_"]))).parameters.values()
    except (TypeError, ValueError):
        return  # some built-in callables have no signature
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = {p.name for p in named}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for key in node.keys() - _RESERVED - names:
            raise ConfigError(unknown_key(path, key, names))
    if not node.get("_partial_") and "_args_" not in node:
        for parameter in named:
            if parameter.default is parameter.empty and parameter.name not in node:
                raise ConfigError(no_value(f"{path}.{parameter.name}"))


def _locate(path: str, target: str) -> Callable[..., object]:
    try:
        found = pkgutil.resolve_name(target)
    except Exception as error:  # importing a module can raise anything
        module, _, name = target.rpartition(".")
        try:
            advice = near(name, _own_names(module))
        except Exception:
            advice = f": {one_line(str(error))}"
        raise ConfigError(f"{path}._target_: expected something importable, got {target!r}{advice}") from error
    if not callable(found):
        raise ConfigError(f"{path}._target_: expected a class or function, got {target!r}")
    return found


def _own_names(module: str) -> list[str]:
    """Classes and functions of a module that its own project has made."""
    project = module.partition(".")[0]
    found = vars(importlib.import_module(module)).items()
    return [name for name, value in found if callable(value) and f"{value.__module__}.".startswith(f"{project}.")]


def _named_by_user() -> set[str]:
    """Every `_target_` in the chosen files of folders that the user gave on the command line."""
    hydra = HydraConfig.get()
    folders = [
        Path(s.path) for s in hydra.runtime.config_sources if "command-line" in s.provider and s.schema == "file"
    ]
    names: set[str] = set()
    for folder in folders:
        for group, choice in hydra.runtime.choices.items():
            file = folder / str(group).partition("@")[0] / f"{choice}.yaml"
            if file.is_file():
                names.update(re.findall(r"""_target_['"]?\s*:\s*['"]?([\w.]+)""", file.read_text(encoding="utf-8")))
    return names


def _targets(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every group of keys with a `_target_`, with its path."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from _targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list | ListConfig):
        for i, value in enumerate(node):
            yield from _targets(value, f"{path}[{i}]")

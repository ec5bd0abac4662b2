"""The words of a command line: Hydra's flags and overrides, checked before anything is composed."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import yaml
from hydra._internal.utils import get_args_parser  # to see Hydra's flags as it will; the version is pinned below 1.4
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from evotext.cli.errors import ConfigError
from evotext.cli.messages import one_line, shown, suggestion, unknown_key


@dataclass(frozen=True, kw_only=True)
class Root:
    """The keys at the root of a primary configuration."""

    keys: frozenset[str]
    """Its own keys and its groups."""
    choices: Mapping[str, str | None]
    """The choice that fills each group; None for a group that may stay empty."""

    @property
    def groups(self) -> frozenset[str]:
        """The keys that a choice fills."""
        return frozenset(self.choices)

    @property
    def optional(self) -> frozenset[str]:
        """The groups that may stay without a choice."""
        return frozenset(group for group, choice in self.choices.items() if choice is None)

    @classmethod
    def read(cls, file: Path) -> "Root":
        """Return the root of this file with the files that it begins with; an empty one if there is no such file."""
        config = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
        root = cls(keys=frozenset(config.keys() - {"defaults"}), choices={})
        for entry in config.get("defaults", []):
            if isinstance(entry, dict):
                chosen = {_place(key): choice for key, choice in entry.items() if "override " not in key}
                root = root._with(cls(keys=frozenset(chosen), choices=chosen))
            elif entry != "_self_":
                root = root._with(cls.read(file.with_name(f"{entry}.yaml")))
        return root

    def _with(self, other: "Root") -> "Root":
        return Root(keys=self.keys | other.keys, choices={**self.choices, **other.choices})


def _place(key: str) -> str:
    """Return where a choice of the defaults list goes in the configuration: `optional group`, `group@place`."""
    group, _, place = key.removeprefix("optional ").partition("@")
    return place or group


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """Return Hydra's arguments, and the parser that made them. Raise ConfigError for flags unknown to it or not safe."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{one_line(message)}; see --help")

    parser.error = refuse  # type: ignore[method-assign]
    arguments, unknown = parser.parse_known_intermixed_args(words)
    for word in unknown:
        if word.startswith("--") and "=" in word:
            raise ConfigError(f"expected key=value, got {shown(word)}; leave the dashes out: {word.lstrip('-')}")
        flags = [flag for action in parser._actions for flag in action.option_strings]
        raise ConfigError(f"expected key=value or a flag, got {shown(word)}{suggestion(word, flags)}; see --help")
    if arguments.experimental_rerun is not None:
        raise ConfigError("expected replay=RUN_DIR to run again, got --experimental-rerun, which unpickles a file")
    if arguments.config_path is not None:
        raise ConfigError("expected --config-dir DIR to add your own configurations, got --config-path")
    if arguments.config_dir is not None and not Path(arguments.config_dir).is_dir():
        raise ConfigError(f"--config-dir: expected a folder, got {arguments.config_dir!r}")
    return arguments, parser


def quoted(text: str) -> str:
    """Return a text that Hydra's grammar reads as it is, whatever characters are in it; interpolations stay what they are."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"


def check_overrides(words: Sequence[str], root: Root, *, multirun: bool) -> None:
    """Raise ConfigError for words that Hydra would refuse with a message of its own, or not at all."""
    overrides = OverridesParser.create().parse_overrides(list(words))
    multirun = multirun or any(override.input_line == "hydra.mode=MULTIRUN" for override in overrides)
    for override in overrides:
        key = override.key_or_group
        if not key:
            raise ConfigError(f"expected key=value, got {shown(override.input_line)}")
        if key.startswith("hydra"):
            _check_hydra(override)
        elif override.is_sweep_override() and not multirun:
            value = override.get_value_string()
            raise ConfigError(
                f"{key}: expected one value, got {shown(value)}; add -m to run each, or write a list as {key}=[...]"
            )
        elif not {".", "/", "@"} & set(key) and key not in root.keys:
            raise ConfigError(unknown_key("", key, {*root.keys, "replay"} - {"hydra"}))
        elif key in root.groups and override.is_add() and key not in root.optional and not override.package:
            raise ConfigError(f"{key}: expected one choice, got several; leave the + out")
        elif (key in root.groups or "/" in key) and override.value_type is not None:
            _check_choices(override)


def _check_choices(override: Override) -> None:
    """Raise ConfigError unless a choice is a name within its group: a path would bring in a file of another group."""
    choices = override.sweep_iterator() if override.is_discrete_sweep() else [override.value()]
    for choice in choices:
        if isinstance(choice, list | dict) and override.key_or_group == "env":  # Hydra would mix the tasks' keys
            raise ConfigError(
                f"env: expected one task, or one list of tasks for all runs of a sweep, got {shown(choice)}"
            )
        if not isinstance(choice, str | list | dict) or ".." in str(choice).split("/"):
            raise ConfigError(f"{override.key_or_group}: expected the name of a configuration, got {shown(choice)}")


def _check_hydra(override: Override) -> None:
    """Raise ConfigError for settings of Hydra that would make objects unasked, or name folders that are not there."""
    word = override.input_line or ""
    if "_target_" in word:
        raise ConfigError(f"expected settings of Hydra, got {shown(word)}; name your own classes in --config-dir DIR")
    value = override.value()
    if override.key_or_group == "hydra":
        raise ConfigError(f"hydra: expected the name of a configuration, got {shown(value)}")
    if override.key_or_group == "hydra.searchpath" and isinstance(value, list):
        for place in map(str, value):
            if "pkg://" not in place and not Path(place.removeprefix("file://")).is_dir():
                raise ConfigError(f"hydra.searchpath: expected folders with configurations, got {place!r}")

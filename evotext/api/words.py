"""From Python values to the words of the command line, so that a run from Python is recorded and checked as any other.

Of `algorithm`: {"name": "eggroll", "sigma": 0.01, "perturbation": "full_rank"} becomes algorithm=eggroll
++algorithm.sigma=0.01 algorithm/perturbation=full_rank.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import yaml

from evotext.cli.errors import ConfigError
from evotext.cli.messages import shown
from evotext.cli.words import Root, quoted
from evotext.folders import FOLDERS

NAME = "name"
"""The key of a group's values that chooses its file."""
_ROOT = Root.read(FOLDERS["conf"] / "config.yaml")
_KEY = re.compile(r"[\w./@-]+")


def choices_of(group: str) -> list[str]:
    """Return the names that can be chosen of a group: its files, but for those that are parts of others."""
    files = sorted((FOLDERS["conf"] / group).glob("*.yaml"))
    return [file.stem for file in files if not (group == "env" and file.stem == "text_task")]


def words_for(key: str, value: object) -> Iterator[str]:
    """Yield the words that set a key of the configuration's root, or one below it by its dots. Raise ConfigError."""
    if not _KEY.fullmatch(key):
        raise ConfigError(f"expected keys of the configuration as keywords, got {shown(key)}")
    if key in _ROOT.groups:
        yield from _group_words(key, key, value)
    elif "/" in key:
        yield f"{key}={_chosen(key, value)}"
    else:
        yield from _value_words(key, value)


def _group_words(group: str, place: str, value: object) -> Iterator[str]:
    """Words for the group at a place: its name, or a mapping with a name and values."""
    at = group if group.replace("/", ".") == place else f"{group}@{place}"
    if not isinstance(value, Mapping):
        yield f"{at}={_chosen(place, value)}"
        return
    name = value.get(NAME)
    if name is not None:
        yield f"{at}={_chosen(f'{place}.{NAME}', name)}"
    below = _groups_within(group, str(name) if name is not None else _ROOT.choices.get(group))
    for key, own in value.items():
        if key in below:
            yield from _group_words(below[key], f"{place}.{key}", own)
        elif key != NAME:
            yield from _value_words(f"{place}.{key}", own)


def _value_words(key: str, value: object) -> Iterator[str]:
    if not _KEY.fullmatch(key):
        raise ConfigError(f"expected keys of the configuration, got {shown(key)}")
    if isinstance(value, Mapping) and value:
        for name, own in value.items():
            yield from _value_words(f"{key}.{name}", own)
    else:
        yield f"++{key}={_written(key, value)}"


def _chosen(place: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{place}: expected the name of a configuration, got {shown(value)}")
    return quoted(value)


def _written(key: str, value: object) -> str:
    """Write a value in the grammar of Hydra's words."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return quoted(str(value))
    if isinstance(value, list | tuple):
        return f"[{','.join(_written(key, item) for item in value)}]"
    if isinstance(value, Mapping):
        for name in value:
            if not str(name).isidentifier():
                raise ConfigError(f"{key}: expected keys that are names, got {shown(name)}")
        return "{" + ",".join(f"{name}:{_written(key, own)}" for name, own in value.items()) + "}"
    raise ConfigError(
        f"{key}: expected a number, a text, true or false, None, or a list or dict of them, got {shown(value)}"
    )


def _groups_within(group: str, choice: str | None) -> dict[str, str]:
    """Return the groups within a choice, by the key that each fills."""
    file = FOLDERS["conf"] / group / f"{choice}.yaml"
    found: dict[str, str] = {}
    if choice is None or not file.is_file():
        return found
    for entry in (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            found |= _groups_within(group, entry)
        elif isinstance(entry, dict):
            for key in entry:
                name, _, place = str(key).removeprefix("override ").partition("@")
                found[place or name] = f"{group}/{name}"
    return found

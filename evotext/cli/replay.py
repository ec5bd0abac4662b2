"""`replay=RUN_DIR` and `resume=RUN_DIR`: the same run again, or its rest, from its folder's record of its start."""

import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from evotext.cli.errors import ConfigError
from evotext.cli.messages import one_line, shown
from evotext.cli.words import parse, quoted
from evotext.run_folder import names
from evotext.run_folder.configuration import leaves, read_start, read_yaml

_Read = TypeVar("_Read")

MOST_CHANGES = 5
# Settings that may change on resuming: how long, where and how fast, not what is computed. A dot at the end: all below.
RESUMABLE = ("budget.limit", "checkpoint.", "device", "threads", "rows", "algorithm.update", "debug", "phase", "draw")
# Settings that let code other than the project's run. A run's folder may come from anywhere, so they have to be given again.
LEAVE = ("allow_custom_targets", "trust_remote_code")


def expand_replay(words: list[str]) -> tuple[list[str], Path | None]:
    """Replace `replay=RUN_DIR` by the overrides that the run was started with; the other words come after them.

    Return the words and the folder. Hydra's own settings are not replayed, since the new run gets its own folder, except
    for the places where configurations were found. Raise ConfigError if the folder records no run, or in a multirun.
    """
    folder, rest = _folder_in(words, "replay")
    if folder is None:
        return words, None
    overrides, flags = _recorded(folder, "replay", rest)
    return [*overrides, *rest, *flags], folder


def expand_resume(words: list[str]) -> tuple[list[str], Path | None]:
    """Replace `resume=RUN_DIR` by the overrides that the run was started with, to go on in that folder.

    Return the words and the folder. The folder's own record is left as it is. Raise ConfigError if the folder records no
    run, in a multirun, or for words other than those in RESUMABLE.
    """
    folder, rest = _folder_in(words, "resume")
    if folder is None:
        return words, None
    for word in rest:
        if not word.startswith("-") and not _resumable(_key(word)) and not leave_in([word]):
            raise ConfigError(
                f"resume: expected a run to go on as it is, got also {shown(word)}; leave it out, or start anew with "
                f"replay=. What may be another: {', '.join(key + '*' * key.endswith('.') for key in RESUMABLE)}"
            )
    overrides, flags = _recorded(folder, "resume", rest)
    place = quoted_path(folder)
    own = [f"resume={place}", f"hydra.run.dir={place}", "hydra.output_subdir=null"]
    return [*overrides, *rest, *own, *flags], folder


def begun_by(words: list[str]) -> Path | None:
    """Return the folder that the words name with `hydra.run.dir` if they have begun a run there."""
    overrides = OverridesParser.create().parse_overrides(parse(words)[0].overrides)
    named = [str(override.value()) for override in overrides if override.key_or_group == "hydra.run.dir"]
    if not named or not any((Path(named[-1]) / file).exists() for file in (names.METRICS, names.SUMMARY)):
        return None
    try:
        start = read_start(Path(named[-1]))
    except (OSError, ValueError):
        return None
    task = [o.input_line for o in overrides if not str(o.key_or_group).startswith("hydra")]
    return Path(named[-1]) if start.overrides == task else None


def _folder_in(words: list[str], command: str) -> tuple[Path | None, list[str]]:
    """Return the folder of `command=RUN_DIR`, and the other words."""
    folders = [word.removeprefix(f"{command}=") for word in words if word.startswith(f"{command}=")]
    rest = [word for word in words if not word.startswith(f"{command}=")]
    if folders and (len(folders) > 1 or {"-m", "--multirun"} & set(rest)):
        raise ConfigError(
            f"{command}: expected one run's folder and no multirun, got more; {command} one run at a time"
        )
    return (Path(folders[0]) if folders else None), rest


def leave_in(words: Iterable[str]) -> list[str]:
    """Return the words that let code other than the project's run."""
    return [word for word in words if any(name in word for name in LEAVE) and word.partition("=")[2].lower() != "false"]


def quoted_path(path: Path) -> str:
    """Return a path as a value in Hydra's grammar, whatever characters are in it: none of them is an interpolation."""
    return quoted(re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", str(path)))


def warn_of_changes(config: DictConfig, folder: Path) -> None:
    """Say on standard error where the configuration is not the recorded one: overridden now, or a file has changed."""
    changed = _changes(config, folder, "replay")
    if changed:
        print(f"note: not the same as {folder}: {_listed(changed.values())}", file=sys.stderr)


def refuse_changes(config: DictConfig, folder: Path) -> None:
    """Raise ConfigError where the configuration is not the recorded one, except for settings that may change on resuming."""
    changed = [change for key, change in _changes(config, folder, "resume").items() if not _resumable(key)]
    if changed:
        raise ConfigError(
            f"resume: expected the configuration that {folder} was started with, got {_listed(changed)}; "
            "put it back, or start anew with replay="
        )


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _resumable(key: str) -> bool:
    return key == "resume" or any(key.startswith(k) if k.endswith(".") else key == k for k in RESUMABLE)


def _recorded(folder: Path, command: str, given: list[str]) -> tuple[list[str], list[str]]:
    """Return the overrides and flags that a run was started with, except for flags that are given again now."""
    start = _of_a_run(read_start, folder, command)
    if (folder / names.HYDRA / names.OBJECTS).exists():
        raise ConfigError(
            f"{command}: expected a run that words describe, got {folder}, for which evotext.tune was given objects of "
            f"Python's; call tune again with the same arguments{f' and resume={str(folder)!r}' * (command == 'resume')}"
        )
    overrides = list(start.overrides)
    for word in overrides:
        if word.startswith("-") or _key(word).startswith("hydra"):  # never recorded there
            raise ConfigError(f"{command}: expected the record of a run, got {shown(word)} in its overrides.yaml")
    said = set(map(_key, given))
    for word in leave_in(overrides):
        if _key(word) not in said:
            raise ConfigError(
                f"{command}: expected {shown(word)} to be said again, for {folder} wants to run code that is not the "
                "project's; add it if you trust that folder"
            )
    overrides += [word for word in start.hydra_overrides if word.lstrip("+").startswith("hydra.searchpath=")]
    flags: list[str] = []
    folders = start.config_folders
    if folders and not {"--config-dir", "-cd"} & set(given):
        if Path(folders[0]).resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"{command}: expected configurations of yours, got {folders[0]}, which came with the run; "
                f"add --config-dir {folders[0]} if you trust it"
            )
        flags += ["--config-dir", folders[0]]
    if not {"--config-name", "-cn"} & set(given):
        flags += ["--config-name", start.config_name]
    return overrides, flags


def _changes(config: DictConfig, folder: Path, command: str) -> dict[str, str]:
    """Return the settings that have changed, in words, by key."""
    recorded = dict(leaves(_of_a_run(partial(read_yaml, name=names.CONFIG), folder, command)))
    now = dict(leaves(OmegaConf.to_container(config)))
    changed = sorted(key for key in recorded.keys() | now.keys() if recorded.get(key) != now.get(key))
    return {key: f"{key}={shown(now.get(key))} (was {shown(recorded.get(key))})" for key in changed}


def _listed(changes: Iterable[str]) -> str:
    some = list(changes)
    return ", ".join(some[:MOST_CHANGES] + ["..."] * (len(some) > MOST_CHANGES))


def _of_a_run(read: Callable[[Path], _Read], folder: Path, command: str) -> _Read:
    try:
        return read(folder)
    except OSError as error:
        raise ConfigError(
            f"{command}: expected the folder of a run, got {str(folder)!r}: no {error.filename or error}"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{command}: expected the record of a run, got a damaged {one_line(str(error))}") from error

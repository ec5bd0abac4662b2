"""`replay=RUN_DIR`: the same run again, from what its folder says that it was started with."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from evotext.config_errors import ConfigError
from evotext.config_messages import one_line, shown

MOST_CHANGES = 5


def expand_replay(words: list[str]) -> tuple[list[str], Path | None]:
    """Replace `replay=RUN_DIR` by the overrides that the run was started with; the other words come after them.

    Returns the words and the folder. Hydra's own settings are not replayed, since the new run gets its own folder; but
    for the places where configurations were found. Raises ConfigError if the folder records no run, or in a multirun.
    """
    folders = [word.removeprefix("replay=") for word in words if word.startswith("replay=")]
    if not folders:
        return words, None
    rest = [word for word in words if not word.startswith("replay=")]
    if len(folders) > 1 or {"-m", "--multirun"} & set(rest):
        raise ConfigError("replay: expected one run's folder and no multirun, got more; replay one run at a time")
    folder = Path(folders[0])
    overrides = [str(word) for word in _load(folder, "overrides.yaml")]
    hydra = _load(folder, "hydra.yaml").hydra
    overrides += [word for word in hydra.overrides.hydra if word.lstrip("+").startswith("hydra.searchpath=")]
    flags: list[str] = []
    given = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    if given and not {"--config-dir", "-cd"} & set(rest):
        flags += ["--config-dir", given[0]]
    if not {"--config-name", "-cn"} & set(rest):
        flags += ["--config-name", hydra.job.config_name]
    return [*overrides, *rest, *flags], folder


def warn_of_changes(config: DictConfig, folder: Path) -> None:
    """Say on standard error where the configuration is not the recorded one: overridden now, or a file has changed."""
    recorded = dict(_leaves(OmegaConf.to_container(_load(folder, "config.yaml")), ""))
    now = dict(_leaves(OmegaConf.to_container(config), ""))
    changed = sorted(key for key in recorded.keys() | now.keys() if recorded.get(key) != now.get(key))
    listed = [f"{key}={shown(now.get(key))} (was {shown(recorded.get(key))})" for key in changed[:MOST_CHANGES]]
    if changed:
        listed += ["..."] if len(changed) > MOST_CHANGES else []
        print(f"note: not the same as {folder}: {', '.join(listed)}", file=sys.stderr)


def _load(folder: Path, name: str) -> Any:
    file = folder / ".hydra" / name
    try:
        return OmegaConf.load(file)
    except OSError as error:
        raise ConfigError(f"replay: expected the folder of a run, got {str(folder)!r}: no {file}") from error
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigError(
            f"replay: expected the record of a run, got a damaged {file}: {one_line(str(error))}"
        ) from error


def _leaves(node: Any, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node

"""The command and configuration of a run, as Hydra recorded them in its folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from pydantic import AliasPath, BaseModel, Field, ValidationError

from evotext.run_folder import names

MOST_NODES = 10_000
Hyperparameter = float | int | str | bool
# Settings that change where and how fast a run goes, or who watches, but not its results.
_LEFT_OUT = (
    *("device", "threads", "rows", "debug", "resume", "allow_custom_targets", "checkpoint", "tracker", "phase", "draw"),
)
# The values that a head-to-head tries, which are not settings of a run.
_SEARCH = "_search_"
_GROUPS = ("algorithm", "env", "model", "adapter", "budget")


class _Source(BaseModel):
    path: str
    provider: str


class Start(BaseModel):
    """The command that started a run."""

    overrides: list[str]
    """Its words, without those for Hydra itself."""
    hydra_overrides: list[str] = Field(validation_alias=AliasPath("hydra", "overrides", "hydra"))
    """Those for Hydra itself."""
    config_sources: list[_Source] = Field(validation_alias=AliasPath("hydra", "runtime", "config_sources"))
    """Where Hydra looked for configurations."""
    config_name: str = Field(validation_alias=AliasPath("hydra", "job", "config_name"))
    """The primary configuration's name."""

    @property
    def config_folders(self) -> list[str]:
        """Folders of configurations that its flags named."""
        return [source.path for source in self.config_sources if source.provider == "command-line"]


def read_start(folder: Path) -> Start:
    """Return how the run was started. Raise OSError if a file is not there, ValueError naming one that is damaged."""
    words, hydra = read_yaml(folder, names.OVERRIDES), read_yaml(folder, names.HYDRA_CONFIG)
    if not isinstance(words, list):
        raise ValueError(f"{folder / names.HYDRA / names.OVERRIDES}: expected a list of words")
    try:
        return Start.model_validate({**_mapping(hydra), "overrides": list(map(str, words))})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{folder / names.HYDRA / names.HYDRA_CONFIG}: {place}: {first['msg']}") from error


def read_yaml(folder: Path, name: str) -> object:
    """Return what a file of `.hydra` holds. Raise OSError if it is not there, ValueError if it is damaged."""
    file = folder / names.HYDRA / name
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{file}: {error}") from error


def read_config(folder: Path) -> Mapping[str, object]:
    """Return the run's configuration; empty where the folder has none, or a damaged one."""
    return _mapping(_forgiven(folder, names.CONFIG))


def choices(folder: Path) -> Mapping[str, str]:
    """Return the name that was chosen of each group, by group; empty where the folder does not say."""
    node = _forgiven(folder, names.HYDRA_CONFIG)
    for key in ("hydra", "runtime", "choices"):
        node = _mapping(node).get(key)
    return {str(group): str(choice) for group, choice in _mapping(node).items() if choice}


def hyperparameters(folder: Path) -> dict[str, Hyperparameter]:
    """Return each group's choice, and every value by its dotted key, so that runs can be compared.

    Lists are text; null is left out. Empty if the folder has no configuration, as that of a run that no command started.
    """
    chosen, config = choices(folder), read_config(folder)
    if not (chosen and config):
        return {}
    values = {
        key: value if isinstance(value, float | int | str) else str(value)
        for key, value in leaves({k: v for k, v in config.items() if k not in _LEFT_OUT})
        if value is not None and value != {} and not any(part.startswith("_") for part in key.split("."))
    }
    return {group: chosen[group] for group in _GROUPS if group in chosen} | values


def leaves(node: object, most: int = MOST_NODES) -> Iterator[tuple[str, object]]:
    """Yield the dotted keys and values of nested mappings in their order; lists and empty mappings are values.

    most: nodes that are looked at. YAML's anchors can describe trees far larger than the file, even endless.
    """
    stack = [("", node)]
    while stack and most:
        key, value = stack.pop()
        most -= 1
        if isinstance(value, dict) and value:
            below = [(name, child) for name, child in value.items() if name != _SEARCH][:most]
            children = [(f"{key}.{name}" if key else str(name), child) for name, child in below]
            stack.extend(reversed(children))
        elif key:
            yield key, value


def _forgiven(folder: Path, name: str) -> object:
    try:
        return read_yaml(folder, name)
    except (OSError, ValueError):
        return None


def _mapping(node: object) -> Mapping[str, object]:
    return node if isinstance(node, dict) else {}

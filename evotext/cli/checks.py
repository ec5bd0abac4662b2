"""Checks of a composed configuration before anything is made of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, Field, TypeAdapter

from evotext.cli.errors import ConfigError, configuration
from evotext.cli.messages import explain, no_value, shown, unknown_key
from evotext.cli.targets import check_targets, targets
from evotext.cli.words import Root
from evotext.run_folder.configuration import leaves
from evotext.run_folder.schema import Keep, Phase
from evotext.validation import NonNegativeInt, PositiveInt

# More threads than any machine has; with many more, the libraries below fail to start theirs.
MOST_THREADS = 1024
# Settings of a whole run, outside of all groups.
SETTINGS: Mapping[str, Any] = {
    "seed": Annotated[int, Field(ge=0, lt=2**63)],  # keys of the random streams have 64 bits
    "device": str,
    "threads": Annotated[int, Field(ge=1, le=MOST_THREADS)] | None,
    "rows": PositiveInt | None,
    "cuda_graphs": bool,
    "phase": Phase,
    "draw": NonNegativeInt,
    "keep": Keep,
    "sample_every": NonNegativeInt,
    "resume": str | None,
    "debug": bool,
    "allow_custom_targets": bool,
}


def check(config: DictConfig, root: Root) -> None:
    """Raise ConfigError unless every key is known, every value is there, and every `_target_` is trusted."""
    for key in map(str, config):
        if key not in root.keys:
            raise ConfigError(unknown_key("", key, {*root.keys, "replay"} - {"hydra"}))
    for key in sorted(root.keys - root.optional - {"hydra"}):
        if key not in config:
            raise ConfigError(f"{key}: expected {'a choice' if key in root.groups else 'a value'}, got none")
    for key in sorted(root.groups):
        if key in config and not isinstance(config._get_node(key), DictConfig):
            raise ConfigError(f"{key}: expected the name of a configuration, got {shown(config[key])}")
    # Not `OmegaConf.missing_keys`, which resolves: of `name: ${.id}` it would name `name`.
    if missing := sorted(key for key, value in leaves(OmegaConf.to_container(config)) if value == "???"):
        raise ConfigError(no_value(missing[0]))
    try:
        values = OmegaConf.to_container(config, resolve=True)
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(values, dict)
    check_values(config, SETTINGS)
    check_targets(values, None if values.get("allow_custom_targets") else _named_by_user())


def check_values(config: DictConfig, kinds: Mapping[str, Any]) -> None:
    """Raise ConfigError for a value that is not of its key's type (an annotation of pydantic's). Keys may be missing."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    for key, kind in kinds.items():
        if key in values:
            with configuration(key):
                TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python(values[key])


def _named_by_user() -> set[str]:
    """Return every `_target_` in the chosen files of folders that the user gave on the command line."""
    hydra = HydraConfig.get()
    folders = [
        Path(s.path) for s in hydra.runtime.config_sources if "command-line" in s.provider and s.schema == "file"
    ]
    files = [
        folder / str(group).partition("@")[0] / f"{choice}.yaml"
        for folder in folders
        for group, choice in hydra.runtime.choices.items()
    ]
    given = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in files if file.is_file())
    return {node["_target_"] for values in given for _, node in targets(values) if isinstance(node["_target_"], str)}

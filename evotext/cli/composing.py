"""A configuration without a command line."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from evotext.cli.checks import check
from evotext.cli.errors import ConfigError
from evotext.cli.messages import explain
from evotext.cli.several_tasks import expand_tasks
from evotext.cli.words import Root, check_overrides
from evotext.folders import FOLDERS
from evotext.run_folder import names


def compose(config_name: str, words: Sequence[str] = ()) -> DictConfig:
    """Return the configuration that a command of this name would get with these words. Raise ConfigError if they make none."""
    return compose_checked(config_name, words, checked=False).config


@dataclass(frozen=True, kw_only=True)
class Composed:
    """A configuration with Hydra's own, which says how it came about."""

    config: DictConfig
    """The configuration that a command gets."""
    hydra: DictConfig
    """One key, `hydra`, with everything below it."""

    @property
    def choices(self) -> Mapping[str, str]:
        """The name that was chosen of each group."""
        chosen: Mapping[str, str] = self.hydra.hydra.runtime.choices
        return chosen

    def folder(self) -> Path:
        """Return the folder that a run of a command would get now."""
        with _known(self.hydra):  # a folder's name may hold values of the configuration
            return Path(str(OmegaConf.unsafe_merge(self.hydra.copy(), self.config).hydra.run.dir))

    def record(self, folder: Path) -> None:
        """Write `.hydra/` into the folder, as Hydra does for a command: what `replay=` and `resume=` read. Raise OSError."""
        place = folder / names.HYDRA
        place.mkdir(parents=True, exist_ok=True)
        files = {names.CONFIG: self.config, names.HYDRA_CONFIG: self.hydra}
        for name, node in files.items():
            (place / name).write_text(OmegaConf.to_yaml(node), encoding="utf-8")
        (place / names.OVERRIDES).write_text(OmegaConf.to_yaml(self.hydra.hydra.overrides.task), encoding="utf-8")


def compose_checked(config_name: str, words: Sequence[str], *, checked: bool = True) -> Composed:
    """Return what a command of this name would get with these words, checked as its command line checks it.

    Raise ConfigError if they make no configuration, or one with a mistake. checked: False leaves the checks out.
    """
    words = expand_tasks(words)
    root = Root.read(FOLDERS["conf"] / f"{config_name}.yaml")
    try:
        if checked:
            check_overrides(words, root, multirun=False)
        with hydra.initialize_config_dir(str(FOLDERS["conf"]), version_base="1.3"):
            config = hydra.compose(config_name, list(words), return_hydra_config=True)
        own = OmegaConf.masked_copy(config, ["hydra"])
        with open_dict(config):
            del config["hydra"]
        if checked:
            with _known(own):
                check(config, root)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error
    return Composed(config=config, hydra=own)


@contextmanager
def _known(config: DictConfig) -> Iterator[None]:
    """Within it, Hydra's own settings are these: what `HydraConfig` gives and `${hydra:...}` means."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before

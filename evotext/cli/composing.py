"""A configuration without a command line."""

from collections.abc import Sequence

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from evotext.cli.errors import ConfigError
from evotext.cli.messages import explain
from evotext.folders import FOLDERS


def compose(config_name: str, words: Sequence[str] = ()) -> DictConfig:
    """Return the configuration that a command of this name would get with these words. Raise ConfigError if they make none."""
    try:
        with hydra.initialize_config_dir(str(FOLDERS["conf"]), version_base="1.3"):
            return hydra.compose(config_name, list(words))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error

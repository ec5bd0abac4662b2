"""Hydra's plugins for sweeps: the package that each needs, the project's presets, and the line at a sweep's end."""

import math
import re
import shlex
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from evotext.cli.errors import ConfigError
from evotext.cli.main import how_to

# The choices that have a preset, `conf/hydra/GROUP/NAME_preset.yaml`, and the packages that they come from.
PACKAGES = {
    "launcher": {
        "joblib": "hydra-joblib-launcher",
        "submitit_local": "hydra-submitit-launcher",
        "submitit_slurm": "hydra-submitit-launcher",
        "ray": "hydra-ray-launcher",
    },
    "sweeper": {"optuna": "hydra-optuna-sweeper"},
}


class HowToCompare(Callback):
    """Prints the command that compares the runs of a sweep, at its end, and on the way the time that is left."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Count the runs; Hydra calls this before the first."""
        self._begin, self._done, self._runs = time.monotonic(), 0, _runs(list(config.hydra.overrides.task))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Print how long the rest takes, where jobs run one after another in this process."""
        if config.hydra.mode != RunMode.MULTIRUN or not config.hydra.launcher._target_.endswith(".BasicLauncher"):
            return
        self._done += 1
        left = (time.monotonic() - self._begin) / self._done * (self._runs - self._done)
        if left > 0 and config.hydra.sweeper._target_.endswith(".BasicSweeper"):
            print(f"{self._done} of {self._runs} runs, about {left / 60:,.1f} min left", flush=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the line; Hydra calls this."""
        folder = Path(config.hydra.sweep.dir)
        words = shlex.join([str(folder), f"out={folder / 'report'}"])
        print(f"to compare these runs: {how_to('compare')} {words}", flush=True)


def _runs(words: list[str]) -> int:
    """Return how many runs Hydra's own sweeper makes of these words."""
    overrides = OverridesParser.create().parse_overrides(words)
    return math.prod(len(list(override.sweep_iterator())) for override in overrides if override.is_sweep_override())


def expand_presets(words: list[str]) -> list[str]:
    """Replace the name of a plugin by that of its preset, which Hydra does not take under the same name.

    Raise ConfigError if the plugin is not installed.
    """
    return [_expanded(word) for word in words]


def _expanded(word: str) -> str:
    found = re.fullmatch(r"hydra/(launcher|sweeper)=(\w+?)(?:_preset)?", word)
    package = PACKAGES[found[1]].get(found[2]) if found else None
    if found is None or package is None:
        return word
    try:
        version(package)
    except PackageNotFoundError:
        raise ConfigError(
            f"hydra/{found[1]}: {found[2]} needs a package that is not installed; pip install {package}"
        ) from None
    return f"hydra/{found[1]}={found[2]}_preset"

"""The cost of environments: the native ones' code as a share of a generation, and one that waits, with and without workers."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from evotext.cli.targets import build
from evotext.folders import FOLDERS
from evotext.models.language_model import LanguageModel
from evotext.rollouts.collector import Collector
from evotext.rollouts.task import TextTask
from evotext.runner.preflight import rows_at_once

from .figures import Figure, Measure, Setting, alternate, figure, ratios
from .work import plain_plan
from .workload import workload

ROWS = 1000
WAITING_ROWS, WAIT = 64, 0.05


def figures(setting: Setting) -> list[Figure]:
    """Measure `environment_share` of each native task, `workers_over_one` and `waiting_over_slowest_row`."""
    model = setting.load()
    found = waiting(setting, model)
    for task in native_tasks():
        engine = Collector(model, task, rows=rows_at_once(None, setting.device))

        def share(repeat: int, engine: Collector = engine) -> float:
            cost = engine.collect(plain_plan(ROWS, repeat, temperature=1.0)).cost
            return cost.env_seconds / cost.seconds

        shares = alternate({task.name: share}, setting.repeats)[task.name]
        found.append(figure(f"environment_share/{task.name}", shares, setting, rows=ROWS, unit="share"))
        task.close()
    return found


def waiting(setting: Setting, model: LanguageModel) -> list[Figure]:
    """Compare an environment that sleeps in every step with one worker and with one a row, and the latter with one sleep."""

    def arm(workers: int) -> Measure:
        task = workload(1, wait=WAIT, workers=workers)
        engine = Collector(model, task, rows=rows_at_once(None, setting.device))
        return lambda repeat: engine.collect(plain_plan(WAITING_ROWS, repeat)).cost.env_seconds

    seconds = alternate({"one": arm(1), "workers": arm(WAITING_ROWS)}, setting.repeats)
    overlapped = ratios(seconds["one"], seconds["workers"])
    over_a_sleep = [taken / WAIT for taken in seconds["workers"]]
    return [
        figure("workers_over_one", overlapped, setting, rows=WAITING_ROWS),
        figure("waiting_over_slowest_row", over_a_sleep, setting, rows=WAITING_ROWS),
    ]


def native_tasks() -> list[TextTask]:
    """Return every task of `conf/env` that is our own, at its default difficulty."""
    groups = FOLDERS["conf"] / "env"
    native = [file for file in sorted(groups.glob("*.yaml")) if "id: evotext.envs:" in file.read_text(encoding="utf-8")]
    return [build(_composed(file, groups / "text_task.yaml"), "env") for file in native]


def _composed(file: Path, common: Path) -> DictConfig:
    """Compose as Hydra would: while a command of its runs, Hydra composes nothing else."""
    merged = OmegaConf.merge(OmegaConf.load(common), OmegaConf.load(file))
    return OmegaConf.create({"env": {key: value for key, value in merged.items() if key != "defaults"}})

"""What part of a generation's time the native environments' own code takes, with the built-in model's shape."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import OmegaConf

from benchmarks.figures import Figure, Setting, alternate, figure
from benchmarks.work import plain_plan
from evotext.rollouts.collector import Collector
from evotext.rollouts.task import TextTask
from evotext.runner.preflight import rows_at_once

ROWS = 1000
CONFIGURATIONS = Path(__file__).resolve().parent.parent.parent / "conf" / "env"


def figures(setting: Setting) -> list[Figure]:
    """`environment_share` for each native task."""
    model = setting.load()
    found = []
    for task in native_tasks():
        engine = Collector(model, task, rows=rows_at_once(None, setting.device))

        def share(repeat: int, engine: Collector = engine) -> float:
            cost = engine.collect(plain_plan(ROWS, repeat, temperature=1.0)).cost
            return cost.env_seconds / cost.seconds

        shares = alternate({task.name: share}, setting.repeats)[task.name]
        found.append(figure(f"environment_share/{task.name}", shares, setting, rows=ROWS, unit="share"))
        task.close()
    return found


def native_tasks() -> list[TextTask]:
    """Every task of `conf/env` that is our own, at its default difficulty."""
    configurations = [OmegaConf.load(file) for file in sorted(CONFIGURATIONS.glob("*.yaml"))]
    return [instantiate(c) for c in configurations if str(OmegaConf.to_container(c)["id"]).startswith("envs:")]  # type: ignore[index,call-overload]

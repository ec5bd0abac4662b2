"""The share of a generation's time in the native environments' own code, with the built-in model's shape."""

from evotext.cli.composing import compose
from evotext.cli.targets import build
from evotext.folders import FOLDERS
from evotext.rollouts.collector import Collector
from evotext.rollouts.task import TextTask
from evotext.runner.preflight import rows_at_once

from .figures import Figure, Setting, alternate, figure
from .work import plain_plan

ROWS = 1000


def figures(setting: Setting) -> list[Figure]:
    """Measure `environment_share` of each native task."""
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
    """Return every task of `conf/env` that is our own, at its default difficulty."""
    files = sorted((FOLDERS["conf"] / "env").glob("*.yaml"))
    native = [file.stem for file in files if "id: evotext.envs:" in file.read_text(encoding="utf-8")]
    return [build(compose("check_env", [f"env={name}"]), "env") for name in native]

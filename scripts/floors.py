"""Measure what a native task pays without learning: `python scripts/floors.py env=wordle`."""

from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from envs.floors import open_loop, random_legal
from envs.text_env import TextEnv
from evotext.cli.command import run_hydra
from evotext.cli.errors import build, configuration
from evotext.rollouts.collector import Collector
from evotext.run_folder.atomic import write_json
from evotext.runner.evaluation import Evaluator
from evotext.runner.preflight import check_prompts, choose_device, prepare_torch, rows_at_once
from evotext.runner.summary import versions

CONFIGURATION = Path(__file__).resolve().parent.parent / "conf"


def main(config: DictConfig) -> None:
    """The three floors, from configuration to table and JSON."""
    with configuration():
        prepare_torch(config.threads)
        device = choose_device(config.device)
        for key in ("episodes", "candidates"):
            if not (isinstance(config[key], int) and config[key] >= 2):
                raise ValueError(f"{key}: expected a whole number of at least 2, got {config[key]!r}")
        evaluator: Evaluator = build(config, "evaluation")
        task, source = build(config, "env"), build(config, "model")
        env = task.environments(1)[0].unwrapped
        if not isinstance(env, TextEnv):
            raise ValueError(f"env: expected a native task, which knows legal answers, got {task.name}")
        check_prompts(source.outline(), task)
        model = source.load(device)
    rng = np.random.default_rng(config.seed)
    collector = Collector(model, task, rows=rows_at_once(config.rows, device))
    floors = {
        "untrained_model": evaluator.measure(collector, sampled=False).success,
        "random_legal": random_legal(env, rng, config.episodes, task.success_return),
        "open_loop": open_loop(env, rng, config.episodes, config.candidates, task.success_return),
    }
    show(task.name, floors)
    if config.out:
        Path(config.out).parent.mkdir(parents=True, exist_ok=True)
        record = {"env": task.name, "episodes": config.episodes, "floors": floors, "versions": versions()}
        write_json(Path(config.out), record)
        print(config.out)


def show(name: str, floors: dict[str, float]) -> None:
    """A line of figures."""
    table = Table(title=f"floors of {name}: success without learning", title_justify="left")
    for column in floors:
        table.add_column(column.replace("_", " "), justify="right")
    table.add_row(*(f"{floor:.3f}" for floor in floors.values()))
    Console().print(table)


if __name__ == "__main__":
    run_hydra(main, config_dir=CONFIGURATION, config_name="floors")

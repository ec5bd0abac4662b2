"""Measure what a native task pays without learning: `evotext floors env=wordle`."""

from pathlib import Path
from typing import Annotated, NoReturn

import numpy as np
from omegaconf import DictConfig
from pydantic import Field
from rich.console import Console
from rich.table import Table

from evotext.cli.checks import check_values
from evotext.cli.command import run_hydra
from evotext.cli.errors import configuration
from evotext.cli.fitting import fitting_model
from evotext.cli.targets import build
from evotext.envs import TextEnv
from evotext.envs import floors as without_learning
from evotext.rollouts.collector import Collector
from evotext.rollouts.task import single
from evotext.run_folder.atomic import write_json
from evotext.runner.evaluation import Evaluator
from evotext.runner.preflight import choose_device, prepare_torch, rows_at_once
from evotext.runner.summary import versions

AtLeastTwo = Annotated[int, Field(ge=2)]


def measure(config: DictConfig) -> None:
    """Measure the three floors, from configuration to table and JSON."""
    with configuration():
        prepare_torch(config.threads)
        device = choose_device(config.device)
        check_values(config, dict.fromkeys(("episodes", "candidates"), AtLeastTwo))
        evaluator: Evaluator = build(config, "evaluation")
        task, source = single(build(config, "env")), build(config, "model")
        env = task.environments(1)[0].unwrapped
        if not isinstance(env, TextEnv):
            raise ValueError(f"env: expected a native task, which knows legal answers, got {task.name}")
        assert task.success_return is not None, "a native task knows success"
        model = fitting_model(config, source, task, device)
    rng = np.random.default_rng(config.seed)
    collector = Collector(model, task, rows=rows_at_once(config.rows, device), graphs=config.cuda_graphs)
    floors = {
        "untrained_model": evaluator.measure(collector, sampled=False).score[1],
        "random_legal": without_learning.random_legal(env, rng, config.episodes, task.success_return),
        "open_loop": without_learning.open_loop(env, rng, config.episodes, config.candidates, task.success_return),
    }
    show(task.name, floors)
    if config.out:
        Path(config.out).parent.mkdir(parents=True, exist_ok=True)
        record = {"env": task.name, "episodes": config.episodes, "floors": floors, "versions": versions()}
        write_json(Path(config.out), record)
        print(config.out)


def show(name: str, floors: dict[str, float]) -> None:
    """Print a line of figures."""
    table = Table(title=f"floors of {name}: success without learning", title_justify="left")
    for column in floors:
        table.add_column(column.replace("_", " "), justify="right")
    table.add_row(*(f"{floor:.3f}" for floor in floors.values()))
    Console().print(table)


def main(words: list[str]) -> NoReturn:
    """Run the command line."""
    run_hydra(measure, words, config_name="floors")

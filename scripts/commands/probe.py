"""Measure whether evolution strategies can tune this model on this task: `evotext probe model=tiny env=recall`."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from evotext.cli.command import run_hydra
from evotext.cli.errors import configuration
from evotext.cli.fitting import fitting_model
from evotext.cli.targets import build
from evotext.optimizers import probe
from evotext.rollouts.collector import Collector
from evotext.run_folder.atomic import write_json
from evotext.runner.preflight import choose_device, prepare_torch, rows_at_once
from evotext.runner.summary import versions


def measure(config: DictConfig) -> None:
    """Take the measurements, from configuration to tables, picture and JSON."""
    choices = HydraConfig.get().runtime.choices
    with configuration():
        prepare_torch(config.threads)
        device = choose_device(config.device)
        rows = rows_at_once(config.rows, device)
        settings = build(config, "probe")
        task, source, adapter = build(config, "env"), build(config, "model"), build(config, "adapter")
        if task.success_return is None:
            raise ValueError(
                f"env.success_return: expected a number, since a probe counts successes and {task.id} registers no "
                "reward_threshold, got null"
            )
        model = adapter.attach(fitting_model(config, source, task, device))
    collector = Collector(model, task, rows=rows, even=config.rows is None)
    words = same_words(choices, HydraConfig.get().overrides.task)
    found = probe.report.probe(model, collector, settings, words=words)
    for shown in probe.tables.tables(found):
        Console().print(shown)
    if config.out:
        out = Path(config.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, {"env": task.name, "model": model.name, "versions": versions(), **found})
        probe.picture.picture(found, out.with_suffix(".svg"), title=f"{model.name} on {task.name}")
        print(out)


def same_words(choices: Mapping[str, str], overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the words that name the same model and task to another command, quoted for a shell."""
    further = [word for word in overrides if word.lstrip("+").startswith(("model.", "env.", "adapter"))]
    return (f"model={choices['model']}", f"env={choices['env']}", *map(shlex.quote, further))


def main(words: list[str]) -> NoReturn:
    """Run the command line."""
    run_hydra(measure, words, config_name="probe")

"""Measure a model on held-out instances: `evotext evaluate run=RUN_DIR`, or `model=... env=...`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Literal, NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from evotext.cli.command import run_hydra
from evotext.cli.errors import configuration
from evotext.cli.fitting import fitting_model
from evotext.cli.messages import one_line
from evotext.cli.targets import build, check_targets
from evotext.distributed import collectives, torchrun
from evotext.models.huggingface import HuggingFaceModel
from evotext.models.source import ModelSource
from evotext.rollouts.collector import Collector
from evotext.rollouts.task import Task
from evotext.run_folder import names
from evotext.run_folder.atomic import write_json
from evotext.run_folder.configuration import read_config, read_yaml
from evotext.runner.evaluation import Evaluation, Evaluator
from evotext.runner.faults import listed
from evotext.runner.preflight import choose_device, prepare_torch, rows_at_once
from evotext.runner.summary import device_name, versions

from .retained import other_tasks, retention, retention_table, starting_model


def evaluate(config: DictConfig) -> None:
    """Run one evaluation, from configuration to table and JSON; of several processes the first one shows and writes them."""
    with collectives.joined():
        _evaluate(config)


def _evaluate(config: DictConfig) -> None:
    with configuration():
        prepare_torch(config.threads)
        device = choose_device(config.device)
        rows = rows_at_once(config.rows, device)
        evaluator: Evaluator = build(config, "evaluation")
        source, task = model_and_task(config)
        tasks = other_tasks(config, source.outline()) if config.retention else []
        model = fitting_model(config, source, task, device, evaluator)
        start = starting_model(config, device) if tasks else model
    collector = Collector(model, task, rows=rows, graphs=config.cuda_graphs)
    evaluation = evaluator.measure(collector, sampled=True)
    if torchrun.rank() != 0:
        return
    for note in collector.take_notes():
        print(note, file=sys.stderr)
    for fault in evaluation.fault_examples:
        print(f"warning: {one_line(str(fault))} (environment seed {fault.instance})", file=sys.stderr)
    if evaluation.faults:
        ended = f"{evaluation.faults.total():,} of {evaluation.cost.episodes:,} episodes ({listed(evaluation.faults)})"
        print(f"warning: faults of the environment ended {ended}; scores take them for failures", file=sys.stderr)
    record = {
        "model": model.name,
        "env": task.name,
        "episodes": evaluation.episodes,
        "decoding": evaluator.decoding,
        "split": evaluator.split,
        "success": evaluation.success,
        "return": evaluation.mean_return,
        "reward_parts": dict(evaluation.reward_parts),
        "mean_length": evaluation.mean_tokens,
        "faults": dict(evaluation.faults),
        "samples": evaluator.samples,
        "sampled_return": evaluation.sampled_return,
        "pass_at": {str(k): share for k, share in evaluation.pass_at.items()},
        "by_task": {name: asdict(score) for name, score in evaluation.by_task.items()},
        "seconds": evaluation.cost.seconds,
        "generated_tokens": evaluation.cost.generated_tokens,
        "flops": evaluation.cost.flops,
        "versions": versions(),
        "device": device_name(device),
    }
    retained = None
    if tasks:
        with configuration():
            retained = retention(start, model, tasks, evaluator, rows=rows, graphs=config.cuda_graphs)
        record["retention"] = retained.model_dump()
    out = Path(config.out or Path(config.run or ".") / names.EVALUATION)
    with configuration():
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_json(out, record)
        except OSError as error:
            raise ValueError(f"out: expected a file that can be written, got {str(out)!r}: {error.strerror}") from error
    show(record, evaluation, evaluator.instances)
    if retained is not None:
        Console().print(retention_table(retained))
    print(out)


def model_and_task(config: DictConfig) -> tuple[ModelSource, Task]:
    """Return those of the run, or of the configuration. Raise ValueError for a folder that holds no finished run."""
    if config.run is None:
        return build(config, "model"), build(config, "env")
    folder = Path(config.run)
    recorded, weights = read_config(folder), folder / names.MODEL
    if not recorded or not weights.is_dir():
        raise ValueError(f"run: expected a run's folder with .hydra/config.yaml and model/, got {config.run!r}")
    of_run = OmegaConf.create(dict(recorded))
    named = any(word.startswith("env") for word in HydraConfig.get().overrides.task)
    path = str(weights.resolve())
    parallel: Literal["tensor"] | None = "tensor" if OmegaConf.select(of_run, "model.parallel") == "tensor" else None
    source = HuggingFaceModel(
        path=path, dtype="float32", trust_remote_code=False, parallel=parallel, parallel_size=None
    )
    if named:
        return source, build(config, "env")
    if (folder / names.HYDRA / names.OBJECTS).exists() and "env" in str(read_yaml(folder, names.OBJECTS)):
        raise ValueError(
            f"run: expected a run whose task has a name, got {config.run!r}, for which evotext.tune was given an environment; "
            "name a task by env=..."
        )
    recorded_task = OmegaConf.select(of_run, "env")
    if isinstance(recorded_task, DictConfig) and not config.allow_custom_targets:
        check_targets({"env": OmegaConf.to_container(recorded_task, resolve=True)})
    return source, build(of_run, "env")


def show(record: dict[str, object], evaluation: Evaluation, instances: str) -> None:
    """Print a table of the figures and a few episodes."""
    table = Table(title=f"{record['model']} on {record['env']}", title_justify="left")
    parts = evaluation.reward_parts
    for column in ("episodes", "instances", "decoding", "success", "return", *parts, "tokens an episode"):
        table.add_column(column, justify="right")
    table.add_row(
        f"{evaluation.episodes:,}",
        instances,
        str(record["decoding"]),
        "unknown" if evaluation.success is None else f"{evaluation.success:.3f}",
        f"{evaluation.mean_return:.3f}",
        *(f"{mean:.3f}" for mean in parts.values()),
        f"{evaluation.mean_tokens:.1f}",
    )
    Console().print(table)
    if evaluation.by_task:
        tasks = Table(title="by task", title_justify="left")
        for column in ("task", "success", "return"):
            tasks.add_column(column, justify="left" if column == "task" else "right")
        for name, score in evaluation.by_task.items():
            tasks.add_row(
                name, "unknown" if score.success is None else f"{score.success:.3f}", f"{score.mean_return:.3f}"
            )
        Console().print(tasks)
    if evaluation.sampled_return is None:
        return
    figures = {f"pass@{k}": share for k, share in evaluation.pass_at.items()} | {"return": evaluation.sampled_return}
    sampled = Table(title=f"{record['samples']} answers to each at temperature 1", title_justify="left")
    for column in figures:
        sampled.add_column(column, justify="right")
    sampled.add_row(*(f"{value:.3f}" for value in figures.values()))
    Console().print(sampled)


def main(words: list[str]) -> NoReturn:
    """Run the command line."""
    run_hydra(evaluate, words, config_name="evaluate")

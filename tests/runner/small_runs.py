"""Whole runs of every algorithm with a very small model: a second or less each, repeatable to the last bit."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import open_dict

from evotext.cli.targets import build
from evotext.distributed import collectives, torchrun
from evotext.distributed.sharding import RolloutWeights
from evotext.models.huggingface import HuggingFaceModel
from evotext.models.language_model import LanguageModel
from evotext.rollouts.collector import Collector
from evotext.rollouts.curriculum import Levels, WithCurriculum
from evotext.rollouts.mixture import Mixture
from evotext.rollouts.task import Task
from evotext.run_folder.schema import Keep
from evotext.run_folder.writer import JsonLines
from evotext.runner.budget import Budget
from evotext.runner.callbacks import Callbacks
from evotext.runner.checkpoints import Checkpointing
from evotext.runner.evaluation import Evaluator
from evotext.runner.loop import Run
from evotext.trackers.tensorboard import TensorBoard
from tests.rollouts.chatter import chatter, with_frequent_ends
from tests.small_models import small_model

CONF = Path(__file__).parents[2] / "conf"
# Published recipes are other algorithms' code with other numbers.
ALGORITHMS = sorted(file.stem for file in (CONF / "algorithm").glob("*.yaml") if not file.stem.endswith("_published"))
# Set where an algorithm has such a key.
SMALL = {
    "population": 6,
    "prompts": 2,
    "group_size": 6,
    "episodes": 12,
    "minibatches": 2,
    "epochs": 2,
    "micro_rows": 3,
    "values": 2,
}
SMALL_FOR: dict[str, dict[str, Any]] = {"mezo": {"population": 2, "prompts": 6}}
SAME = ("status", "budget", "eval", "dropped_generations", "faults", "evaluation_faults")
"""Parts of a summary that are the same whether or not the run was stopped."""
EPISODES = 12  # of a generation, whatever the algorithm


def small_algorithm(name: str, settings: Mapping[str, Any] = MappingProxyType({})) -> tuple[Any, Any]:
    """An algorithm and its adapter as its configuration and these settings describe them, with little to do."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [f"algorithm={name}"])
    with open_dict(config):
        for key, value in (SMALL | SMALL_FOR.get(name, {})).items():
            if key in config.algorithm:
                config.algorithm[key] = value
        if name == "sft":
            config.algorithm.demonstrations.solved = False  # one episode each: as many as the others take
        if "kl_coefficient" in config.algorithm:
            config.algorithm.kl_coefficient = 0.05  # a reference is state, too
        for key, value in settings.items():
            config.algorithm[key] = value
    return build(config, "algorithm"), build(config, "adapter")


@dataclass(frozen=True)
class Starting:
    """An algorithm whose learner is made by this function of the model and the seed."""

    start: Callable[[LanguageModel, int], Any]


def small_run(
    folder: Path,
    algorithm: str = "eggroll",
    *,
    generations: float = 6,
    rows: int = 12,
    checkpoint_seconds: float = 1e-9,
    keep: int = 2,
    settings: Mapping[str, Any] = MappingProxyType({}),
    fault: str = "",
    task: str = "Chatter",
    wrap: Callable[[Any, LanguageModel], Any] = lambda learner, model: learner,
    evaluator: Evaluator | None = None,
    keep_weights: Keep = "last",
    mixture: bool = False,
    levels: bool = False,
    rollout_weights: RolloutWeights | None = None,
    dtype: torch.dtype = torch.float32,
    family: str = "llama",
    source: Mapping[str, Any] | None = None,
    **more: Any,
) -> Run:
    """A run whose returns vary; it measures twice besides the start and writes a checkpoint after every generation.

    settings: of the algorithm. task, fault: of `toy_environments`. mixture: of this task and a shorter one. levels: of
    its length. source: of a `HuggingFaceModel`. more: of `Run`.
    rollout_weights: of a model that is divided over the processes; None: it is not.
    """
    played: Task = chatter(task, longest=2, fault=fault)
    if mixture:
        tasks = {"plain": played, "short": chatter(task, longest=1, max_turns=1)}
        played = Mixture(tasks=tasks, shares={"plain": 2.0, "short": 1.0}, name="chatter", max_new_tokens=5)
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    made, adapter = small_algorithm(algorithm, settings)
    if levels:
        lengths = {value: chatter(task, longest=value, fault=fault) for value in (1, 2)}
        played = Levels(key="", values=[1, 2], decay=0.9, task=played, at=lambda key, value: lengths[value])
        made = WithCurriculum(made, played)
    model = small_starting_model(dtype, family) if source is None else loaded_model(**source)
    model = adapter.attach(model)
    if rollout_weights:
        model = model.sharded(torch.device("cpu"), rollout_weights)
    first = collectives.rank() == 0
    return Run(
        algorithm=Starting(lambda model, seed: wrap(made.start(model, seed), model)),
        model=model,
        collector=Collector(model, played, rows=rows),
        budget=Budget(unit="episodes", limit=generations * EPISODES),
        evaluator=evaluator or Evaluator(episodes=4, points=2, temperature=0.0, samples=2),
        trackers=[JsonLines(folder), TensorBoard(folder)] if first else [],
        seed=3,
        names={"algorithm": algorithm, "env": "chatter", "model": "small"},
        folder=folder,
        checkpointing=Checkpointing(seconds=checkpoint_seconds, keep=keep),
        keep=keep_weights,
        **more,
    )


def small_starting_model(dtype: torch.dtype = torch.float32, family: str = "llama") -> LanguageModel:
    """The model that every small run tunes."""
    return with_frequent_ends(small_model(family, dtype))


def loaded_model(path: Path, size: int | None) -> LanguageModel:
    """The model that was saved in the folder, held jointly by groups of `size` processes."""
    parallel = {"parallel": None if size is None else "tensor", "parallel_size": size}
    source = HuggingFaceModel(path=str(path), dtype="float32", trust_remote_code=False, **parallel)
    return with_frequent_ends(source.load(torch.device("cpu")))


def let_go(run: Run) -> None:
    """Close the files of a run that is not trained."""
    for tracker in run._trackers:
        tracker.close()


def weights_of(folder: Path) -> str:
    """A hash of the tuned model."""
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def lines_of(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """A record without what is measured in seconds and bytes."""
    lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    timed = ("seconds", "waiting", "bytes", "flops")
    return [{k: v for k, v in line.items() if not any(word in k for word in timed)} for line in lines]


def outcome_of(folder: Path) -> dict[str, Any]:
    """Everything that a stopped and a never stopped run have to have in common."""
    summary = json.loads((folder / "summary.json").read_text())
    counts = ("episodes", "env_steps", "generated_tokens", "updates")
    cost = {k: v for k, v in summary["cost"].items() if k in counts}
    measuring = {k: v for k, v in summary["evaluation_cost"].items() if k in counts}
    return {
        "weights": weights_of(folder),
        "metrics": lines_of(folder),
        "episodes": lines_of(folder, "episodes.jsonl"),
        "summary": {k: summary[k] for k in SAME} | {"cost": cost, "evaluation_cost": measuring},
    }


def run_to_the_end(folder: Path, algorithm: str, resume: bool = False, options: dict[str, Any] | None = None) -> None:
    """Run to the end, in a process of its own."""
    run = small_run(folder, algorithm, **(options or {}))
    if resume:
        run.resume()
    run.train()


def _as_one_of(told: dict[str, str], work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ |= told
    with collectives.joined():
        work(*arguments)


def start(work: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Run it in a process that has torch loaded already and has done nothing yet."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.runner.small_runs"])
    process = context.Process(target=work, args=arguments)
    process.start()
    return process


def together(size: int, work: Callable[..., None], *arguments: Any) -> list[BaseProcess]:
    """Start processes that are one run, as torchrun would."""
    return [start(_as_one_of, told, work, arguments) for told in torchrun.local_group(size)]


def ended(*started: BaseProcess) -> list[int | None]:
    """Their exit codes."""
    deadline = time.monotonic() + 120
    for process in started:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in started]


def called_off(after: int) -> Callbacks:
    """Return callbacks that end a run after this many lines of its metrics."""
    lines = count(1)
    return Callbacks([lambda _: next(lines) >= after])

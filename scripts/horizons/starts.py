"""A start of equal success at every length, each from a warm-up of its own that knows the task at that length.

1. A base: the base of the length before it (of the shortest: the built-in model) learns `BASE_STEPS` steps, with a learning
   rate that falls to zero, on demonstrations of its own length, right and wrong ones as the demonstrator mixes them.
2. Its success is brought to the band: on demonstrations that fail alone if it is above the centre, that succeed alone if it is
   below. Once success has crossed the centre, the start is found by bisection on the line between the weights before and after.

A warm-up that stops where success first rises through the band will not do: weights after thirty steps are so brittle that
every algorithm ruins them. Success is greedy, on validation instances, which no report is made on: on a few at each look, on
many in the bisection.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from transformers import LlamaForCausalLM, PreTrainedModel

from evotext.cli.composing import compose
from evotext.cli.targets import build
from evotext.models.language_model import LanguageModel
from evotext.models.warm_up import warm_up
from evotext.rollouts.collector import Collector
from evotext.rollouts.task import TextTask, single
from evotext.runner.evaluation import Evaluator

CENTRE, HALF_WIDTH = 0.15, 0.03
LOOK, DECIDE = 256, 1024
"""Instances of a look, and of a measurement of the bisection."""
NEAR, MOST_BISECTIONS = 0.01, 6
"""The bisection ends so near to the centre, or after so many measurements."""
BASE_STEPS, BASE_RATE = 100, 3.0e-3
MOST_STEPS, RATE, LOOK_EVERY = 100, 1.0e-3, 2
"""Settings of the second part."""
BATCH, SEED = 48, 0


class Crossed(Exception):
    """Success has crossed the centre."""


def start(folder: Path, words: list[str], before: Path | None) -> dict[str, float]:
    """Return what the start of a task is, made in `folder` unless it is there. before: the folder of the next shorter length.

    words: choose the task and the built-in model. Raise ValueError if no success within the band was found.
    """
    record = folder / "start.json"
    if record.exists():
        found: dict[str, float] = json.loads(record.read_text(encoding="utf-8"))
        return found
    config = compose("config", words)
    task: TextTask = build(config, "env")
    model: LanguageModel = build(config, "model").load(torch.device("cpu"))
    if before is not None:
        model.network.load_state_dict(
            LlamaForCausalLM.from_pretrained(before / "base", dtype=torch.float32).state_dict()
        )
    _learn(model, _demonstrations(task, None), steps=BASE_STEPS, rate=BASE_RATE, on_step=_quiet)
    model.network.save_pretrained(folder / "base")
    collector = Collector(model, task, rows=256)
    base = greedy = _success(collector, DECIDE)
    steps = 0
    if abs(base - CENTRE) > NEAR:
        steps, greedy = _brought_to_the_centre(model, collector, rising=base < CENTRE)
    if abs(greedy - CENTRE) > HALF_WIDTH:
        raise ValueError(
            f"expected a success of {CENTRE} +- {HALF_WIDTH} on {task.name} {task.options}, got {greedy:.3f}"
        )
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    sampled = _success(collector, DECIDE, temperature=1.0)
    found = {"base": base, "steps": steps, "greedy": greedy, "sampled": sampled, "instances": DECIDE}
    record.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return found


def _brought_to_the_centre(model: LanguageModel, collector: Collector, *, rising: bool) -> tuple[int, float]:
    """Train until success crosses the centre and go back to it; return the steps and success."""
    network = model.network
    before = [copy.deepcopy(network.state_dict())]
    taken: list[int] = []

    def look(steps: int, loss: float) -> None:
        taken.append(steps)
        if steps % LOOK_EVERY:
            return
        network.eval()
        few = _success(collector, LOOK)
        print(f"  {single(collector.task).options} step {steps}: loss {loss:.3f}, success {few:.3f}", flush=True)
        if (few >= CENTRE) == rising:
            raise Crossed
        before[:] = [copy.deepcopy(network.state_dict())]
        network.train()

    try:
        _learn(model, _demonstrations(single(collector.task), rising), steps=MOST_STEPS, rate=RATE, on_step=look)
    except Crossed:
        network.eval()
    return taken[-1], _between(network, before[-1], collector, rising=rising)


def _between(network: PreTrainedModel, before: dict[str, torch.Tensor], collector: Collector, *, rising: bool) -> float:
    """Leave the network on the line from `before` to its weights where success is nearest the centre; return that success."""
    after = copy.deepcopy(network.state_dict())
    tried: dict[float, float] = {}
    low, high = 0.0, 1.0
    for _ in range(MOST_BISECTIONS):
        share = (low + high) / 2
        network.load_state_dict({key: torch.lerp(before[key], after[key], share) for key in after})
        tried[share] = _success(collector, DECIDE)
        print(f"    at {share:.3f} of the way: {tried[share]:.3f}", flush=True)
        if abs(tried[share] - CENTRE) <= NEAR:
            return tried[share]
        low, high = (share, high) if (tried[share] < CENTRE) == rising else (low, share)
    share = min(tried, key=lambda one: abs(tried[one] - CENTRE))
    network.load_state_dict({key: torch.lerp(before[key], after[key], share) for key in after})
    return tried[share]


def _learn(
    model: LanguageModel, shown: Iterator[list[tuple[str, str]]], *, steps: int, rate: float, on_step: Any
) -> None:
    recipe = {"steps": steps, "batch_size": BATCH, "learning_rate": rate, "seed": SEED, "on_step": on_step}
    warm_up(model.network, model.chat, shown, **recipe)


def _quiet(steps: int, loss: float) -> None:
    pass


def _success(collector: Collector, episodes: int, *, temperature: float = 0.0) -> float:
    evaluator = Evaluator(episodes=episodes, points=1, temperature=temperature, samples=0, split="validation")
    success = evaluator.measure(collector, sampled=False).success
    assert success is not None, "native tasks know their success"
    return success


def _demonstrations(task: TextTask, solved: bool | None) -> Iterator[list[tuple[str, str]]]:
    """Yield training episodes of the task's own demonstrator. solved: those alone that are paid in full, or that are not."""
    player: Any = gymnasium.make(task.id, **task.options).unwrapped  # a native task, which demonstrates itself
    rng = np.random.default_rng(SEED)
    while True:
        observation, _ = player.reset(seed=2 * int(rng.integers(2**30)), options={"split": "train"})
        turns, total, over = [], 0.0, False
        while not over:
            turns.append((observation, player.imitate(rng)))
            observation, reward, over, _, _ = player.step(turns[-1][1])
            total += reward
        if solved is None or solved == (total >= (task.success_return or 0.0)):
            yield turns

"""Episodes of a toy environment that talks at random, with a small model whose answers differ in length."""

from typing import Any

from evotext.models.language_model import LanguageModel
from evotext.rollouts.collector import Collector
from evotext.rollouts.task import TextTask
from evotext.types import RolloutPlan, Sampling, Trajectories

ROWS = 11


def with_frequent_ends(model: LanguageModel, share: float = 0.3) -> LanguageModel:
    """The same model with many end tokens, so that completions differ in length and rows leave the batch."""
    model.chat.end_ids = frozenset(range(3, 3 + int(share * 97)))
    return model


def chatter(name: str = "Chatter", max_turns: int = 8, **options: Any) -> TextTask:
    return TextTask(
        name="chatter",
        id=f"tests.rollouts.toy_environments:toy/{name}-v0",
        max_new_tokens=5,
        max_turns=max_turns,
        success_return=options.pop("success_return", None),
        strict=options.pop("strict", False),
        step_seconds=options.pop("step_seconds", 60.0),
        workers=options.pop("workers", 0),
        **options,
    )


def plan(temperature: float = 1.0, seed: int = 0, rows: int = ROWS) -> RolloutPlan:
    return RolloutPlan(
        seed=seed,
        generation=2,
        instances=tuple(2 * i for i in range(rows)),
        groups=tuple(range(rows)),
        sampling=Sampling(temperature=temperature),
        logprobs=True,
    )


def collect(model: LanguageModel, task: TextTask, asked: RolloutPlan, rows: int = 100) -> Trajectories:
    return Collector(model, task, rows=rows).collect(asked)

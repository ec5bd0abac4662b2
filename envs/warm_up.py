"""Demonstrations of native tasks, for the supervised warm-up of the built-in model.

A model of a million parameters cannot learn twenty tasks in a minute, so the tasks are divided into courses, and a
model is warmed up on the course of the task that it is to be tuned on: the core course of three tasks together, and
every other task by itself.
"""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np

from .registration import native_ids
from .text_env import TextEnv, Turn

CORE = ("evotext/Countdown-v0", "evotext/Recall-v0", "evotext/Sort-v0")


def demonstrations(count: int, seed: int, *, task: str | None) -> Iterator[list[Turn]]:
    """Yield `count` conversations, each a list of (observation, answer), a pure function of the arguments.

    task: the Gymnasium id of the task that the model is for; the core course serves None and tasks that are not native.

    The course's tasks take turns, each for as many demonstrations as its `practice` says, with their default difficulty
    and training instances only. What they teach, and what they leave to be learned, stands in `TextEnv.demonstrate`.
    """
    rng = np.random.default_rng(seed)
    round_: list[TextEnv[Any]] = []
    for native_id in course(task):
        env = gymnasium.make(native_id).unwrapped
        assert isinstance(env, TextEnv), f"a native task is a TextEnv, {env} is none"
        round_ += [env] * env.practice
    for k in range(count):
        yield round_[k % len(round_)].demonstrate(rng)


def course(task: str | None) -> tuple[str, ...]:
    """Return the ids of the tasks that are practised together with this one, itself included."""
    native_id = (task or "").rpartition(":")[2]  # without the module that registers it
    return (native_id,) if native_id in native_ids() and native_id not in CORE else CORE

"""Demonstrations of all native tasks: what the built-in model is warmed up on by supervised learning."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np

from envs.registration import native_ids
from envs.text_env import TextEnv, Turn


def demonstrations(count: int, seed: int) -> Iterator[list[Turn]]:
    """Yield `count` conversations, each a list of (observation, answer), a pure function of the arguments.

    The native tasks take turns, each for as many demonstrations as its `practice` says, with their default difficulty
    and training instances only. What they teach, and what they leave to be learned, stands in `TextEnv.demonstrate`.
    """
    rng = np.random.default_rng(seed)
    round_: list[TextEnv[Any]] = []
    for native_id in native_ids():
        task = gymnasium.make(native_id).unwrapped
        assert isinstance(task, TextEnv), f"a native task is a TextEnv, {task} is none"
        round_ += [task] * task.practice
    for k in range(count):
        yield round_[k % len(round_)].demonstrate(rng)

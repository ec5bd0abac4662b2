"""Demonstrations of all native tasks: what the built-in model is warmed up on by supervised learning."""

from collections.abc import Iterator

import gymnasium
import numpy as np

from envs.registration import native_ids
from envs.text_env import TextEnv, Turn


def demonstrations(count: int, seed: int) -> Iterator[list[Turn]]:
    """Yield `count` conversations, each a list of (observation, answer), a pure function of the arguments.

    The native tasks take turns, with their default difficulty and training instances only. What the demonstrations
    teach, and what they leave to be learned, stands in `TextEnv.demonstrate`.
    """
    rng = np.random.default_rng(seed)
    tasks = [gymnasium.make(i).unwrapped for i in native_ids()]
    for k in range(count):
        task = tasks[k % len(tasks)]
        assert isinstance(task, TextEnv), f"a native task is a TextEnv, {task} is none"
        yield task.demonstrate(rng)

"""Registers native tasks with Gymnasium, and lists them."""

from collections.abc import Callable
from typing import Any, TypeVar

import gymnasium

from .text_env import TextEnv

_NATIVE: list[str] = []

Task = TypeVar("Task", bound=type[TextEnv[Any]])


def registered(env_id: str, *, reward_threshold: float = 1.0) -> Callable[[Task], Task]:
    """Return a class decorator that registers a task; `reward_threshold` is the greatest return that it can pay.

    Gymnasium's wrappers for order and types are left out: they would cost more than the task, `TextEnv` enforces the
    order itself, and `check_env` runs on every registered task in the tests.
    """

    def register(task: Task) -> Task:
        _NATIVE.append(env_id)
        gymnasium.register(
            id=env_id,
            entry_point=f"{task.__module__}:{task.__qualname__}",
            reward_threshold=reward_threshold,
            max_episode_steps=None,
            order_enforce=False,
            disable_env_checker=True,
        )
        return task

    return register


def native_ids() -> list[str]:
    """Return the ids of this package's own tasks in alphabetical order."""
    return sorted(_NATIVE)

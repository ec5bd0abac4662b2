"""Demonstrations of one task as it is configured: its options, wrappers and limits, played by its own demonstrator."""

from collections.abc import Iterator

import numpy as np

from evotext.rollouts.task import Task, TextTask
from evotext.types import Demonstration

from .text_env import TextEnv

MOST_TRIES = 1000


def task_demonstrations(count: int, seed: int, *, task: Task, solved: bool) -> Iterator[Demonstration]:
    """Yield `count` training episodes as a pure function of the arguments, each played by `TextEnv.imitate`.

    Those of several tasks come by their shares, in random order.
    solved: only episodes that reach the task's `success_return`; those that do not are thrown away and counted.
    Raise ValueError at once for a task without a demonstrator, or without success if solved ones are wanted.
    """
    players = [_demonstrations(count, seed, part, solved=solved) for part in task.parts]
    if len(players) == 1:
        return players[0]
    order = np.random.default_rng(seed).choice(len(players), size=count, p=list(task.shares.values()))
    return (next(players[i]) for i in order)


def _demonstrations(count: int, seed: int, task: TextTask, *, solved: bool) -> Iterator[Demonstration]:
    """Yield them of one task."""
    env = task.environments(1)[0].unwrapped
    if not isinstance(env, TextEnv):
        raise ValueError(
            f"demonstrations: expected a task with demonstrations, got {task.name}, whose {type(env).__name__} is "
            "no envs.TextEnv; name a function (count, seed) of your own by demonstrations._target_"
        )
    if solved and task.success_return is None:
        raise ValueError(
            f"demonstrations.solved: expected false, since nothing says which return of {task.name} is a success, "
            "got true; or set env.success_return"
        )
    return _played(count, seed, task, env, task.success_return if solved else None)


def _played(
    count: int, seed: int, task: TextTask, player: TextEnv[object], goal: float | None
) -> Iterator[Demonstration]:
    """Yield kept episodes with how many were played for each. goal: the least return of an episode that is kept."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        for tries in range(1, MOST_TRIES + 1):
            instructions, turns, total = _episode(rng, task, player)
            if goal is None or total >= goal:
                yield Demonstration(turns=turns, instructions=instructions, played=tries)
                break
        else:
            raise ValueError(
                f"demonstrations.solved: expected an episode of {task.name} that reaches "
                f"{goal:g}, got none in {MOST_TRIES}; set it to false, or look at the task's wrappers"
            )


def _episode(
    rng: np.random.Generator, task: TextTask, player: TextEnv[object]
) -> tuple[str, tuple[tuple[str, str], ...], float]:
    """Return instructions, turns and return of one training episode, seen through the task's wrappers."""
    env = task.environments(1)[0]
    observation, info = env.reset(seed=2 * int(rng.integers(2**30)), options={"split": "train"})  # even: training
    turns, total = [], 0.0
    for _ in range(task.max_turns):
        answer = player.imitate(rng)
        turns.append((observation, answer))
        observation, reward, terminated, truncated, _ = env.step(answer)
        total += float(reward)
        if terminated or truncated:
            break
    return str(info.get("instructions", "")), tuple(turns), total

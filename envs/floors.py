"""The floor of a task, reached without understanding: random legal answers and the best open-loop answer.

A learned success means something above these. An open-loop answer is a fixed text (in tasks of several turns, a fixed
text for each turn) that ignores what the environment says.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .text_env import TextEnv


def random_legal(env: TextEnv[Any], rng: np.random.Generator, episodes: int, success_return: float) -> float:
    """Share of test instances that `TextEnv.legal` solves."""
    solved = 0
    for _ in drawn(env, rng, "test", episodes):
        solved += played(env, rng) >= success_return
    return solved / episodes


def open_loop(
    env: TextEnv[Any], rng: np.random.Generator, episodes: int, candidates: int, success_return: float
) -> float:
    """Share of test instances that one fixed list of answers solves.

    It is the best on training instances among what demonstrators said in `candidates` episodes, right or wrong; half of
    these are from the episodes that they solved, if so many can be found.
    """
    fixed: list[list[str]] = []
    solved: list[list[str]] = []
    for _ in range(8 * candidates):
        answers = [answer for _, answer in env.demonstrate(rng)]
        kept = solved if env.score(env.instance, answers) >= success_return else fixed
        if len(kept) < candidates // 2:
            kept.append(answers)
    training = list(drawn(env, rng, "train", episodes))
    best = max(fixed + solved, key=lambda answers: share(env, training, answers, success_return))
    return share(env, list(drawn(env, rng, "test", episodes)), best, success_return)


def share(env: TextEnv[Any], instances: Sequence[Any], answers: Sequence[str], success_return: float) -> float:
    """Return the share of these instances that these answers, turn by turn, solve."""
    return sum(env.score(instance, answers) >= success_return for instance in instances) / len(instances)


def drawn(env: TextEnv[Any], rng: np.random.Generator, split: str, count: int) -> Iterator[Any]:
    """Yield instances of the split, as `rng` gives them, each of them begun."""
    for _ in range(count):
        env.np_random = rng
        env.reset(options={"split": split})
        yield env.instance


def played(env: TextEnv[Any], rng: np.random.Generator) -> float:
    """Give random legal answers to the end of the episode that has begun and return its return."""
    total, terminated = 0.0, False
    while not terminated:
        _, reward, terminated, _, _ = env.step(env.legal(rng))
        total += reward
    return total

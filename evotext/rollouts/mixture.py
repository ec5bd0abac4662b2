"""Several tasks in one run: each instance is an episode of one of them, drawn by their shares.

The draw is a pure function of the instance (its environment seed), so that the answers of a GRPO group and the members of a
population, which answer the same instance, have the same task.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import floor

import torch

from evotext.keys.philox import Purpose, stream_id, uniform
from evotext.rollouts.task import Task, TextTask
from evotext.types import Split
from evotext.validation import PositiveFloat, PositiveInt, checked


class Mixture:
    """Tasks with shares.

    tasks: by the names that figures have. shares: how often each is drawn, in proportion; None: all alike.
    name: what reports call the mixture; None: its tasks' names. max_new_tokens: the greatest of theirs.
    Raises ValueError for no tasks, and for shares of others.
    """

    @checked
    def __init__(
        self,
        *,
        tasks: Mapping[str, TextTask],
        shares: Mapping[str, PositiveFloat] | None,
        name: str | None,
        max_new_tokens: PositiveInt,
    ) -> None:
        if not tasks:
            raise ValueError("tasks: expected one or more, got none")
        if shares is not None and shares.keys() != tasks.keys():
            raise ValueError(f"shares: expected one of each of {', '.join(tasks)}, got {', '.join(shares) or 'none'}")
        longest = max(task.max_new_tokens for task in tasks.values())
        if max_new_tokens != longest:
            raise ValueError(
                f"max_new_tokens: expected the tasks' greatest, {longest}, got {max_new_tokens}; each task has its own: "
                f"tasks.{next(iter(tasks))}.max_new_tokens"
            )
        self.name = "+".join(tasks) if name is None else name
        self.parts = tuple(tasks.values())
        self.max_new_tokens, self.max_turns = max_new_tokens, max(task.max_turns for task in self.parts)
        known = [task.success_return for task in self.parts]
        self.knows_success = None not in known
        self.success_return = known[0] if len(set(known)) == 1 else None
        self.splits: tuple[Split, ...] = tuple(
            s for s in self.parts[0].splits if all(s in p.splits for p in self.parts)
        )
        weights = dict.fromkeys(tasks, 1.0) if shares is None else {task: shares[task] for task in tasks}
        self.shares: Mapping[str, float] = {task: weight / sum(weights.values()) for task, weight in weights.items()}
        self.measured = self

    def of(self, instances: Sequence[int]) -> list[TextTask]:
        """Return the task of each instance (environment seed)."""
        return [self.parts[i] for i in drawn(instances, list(self.shares.values()), Purpose.TASKS)]


def names_of(task: Task, instances: Sequence[int]) -> list[str]:
    """Return the name in `shares` of each instance's task; nothing for a single task."""
    names, weights = list(task.shares), list(task.shares.values())
    return [names[i] for i in drawn(instances, weights, Purpose.TASKS)] if names else []


def drawn(instances: Sequence[int], weights: Sequence[float], purpose: Purpose) -> list[int]:
    """Return which of the weighted things each instance (environment seed) draws, a pure function of the arguments."""
    uniform_N = uniform(0, stream_id(purpose), 0, torch.tensor(instances, dtype=torch.int64), 1)[:, 0]
    *bounds, total = accumulate(weights)
    return torch.bucketize(uniform_N * total, torch.tensor(bounds, dtype=torch.float64), right=True).tolist()


def in_proportion(task: Task, first: Callable[[int], Sequence[int]], count: int) -> tuple[int, ...]:
    """Return `count` instances, the first ones of each task by its share; the first ones of a single task.

    A measurement on these is the mean over the tasks by their shares, up to the rounding of a count (the largest remainders
    are rounded up). first: returns so many instances, of which more are looked at until there are enough of each task.
    """
    if not task.shares:
        return tuple(first(count))
    wanted = {name: floor(share * count) for name, share in task.shares.items()}
    by_rest = sorted(wanted, key=lambda name: wanted[name] - task.shares[name] * count)
    for name in by_rest[: count - sum(wanted.values())]:
        wanted[name] += 1
    looked_at, chosen = count, list[int]()
    while len(chosen) < count:
        looked_at, chosen, left = 2 * looked_at, [], dict(wanted)
        candidates = first(looked_at)
        for instance, name in zip(candidates, names_of(task, candidates), strict=True):
            if left[name]:
                chosen.append(instance)
                left[name] -= 1
    return tuple(chosen)

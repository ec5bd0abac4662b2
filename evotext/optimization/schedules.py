"""Schedules of hyperparameters and learning rates: factors of a base value, by the share of the budget or by generations.

By the share of the budget a schedule ends where the run does, whatever the budget's unit. A budget in seconds then makes a run
that cannot be repeated to the bit; schedules that count generations make equal runs of equal settings.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch

from evotext.validation import NonNegativeFloat, PositiveInt, checked

Schedule = Callable[[int, float], float]
"""The factor in a generation, counted from 0, before which this share of the budget is spent."""
FIRST = 0.1
"""The factor that a warm-up by the budget begins with: the first generation's share is not known before it is over."""


class Constant:
    """Factor 1 in every generation."""

    def __call__(self, generation: int, spent: float) -> float:
        """Return the factor."""
        return 1.0


class _Ramp(ABC):
    """A rise to 1, then a path from 1 to `end`.

    generations: from 0 until the factor reaches `end`, its last; None: it gets there with the end of the budget.
    warm_up: over which it rises evenly to 1: generations, or a share of the budget where `generations` is None.
    """

    @checked
    def __init__(self, *, generations: PositiveInt | None, end: NonNegativeFloat, warm_up: NonNegativeFloat) -> None:
        if generations is None and warm_up >= 1:
            raise ValueError(f"warm_up: expected a share of the budget below 1 with generations=null, got {warm_up:g}")
        if generations is not None and (warm_up >= generations or warm_up != int(warm_up)):
            raise ValueError(f"warm_up: expected a whole number below generations = {generations}, got {warm_up:g}")
        self._generations, self._end, self._warm_up = generations, end, warm_up

    def __call__(self, generation: int, spent: float) -> float:
        """Return the factor."""
        at, whole = (spent, 1.0) if self._generations is None else (float(generation), float(self._generations))
        if at < self._warm_up:
            if self._generations is None:
                return FIRST + (1.0 - FIRST) * at / self._warm_up
            return (at + 1) / (self._warm_up + 1)
        return self._factor(min(1.0, (at - self._warm_up) / (whole - self._warm_up)))

    @abstractmethod
    def _factor(self, progress: float) -> float:
        """Return the factor at a share of the way from the warm-up's end to the end."""


class Linear(_Ramp):
    """From 1 to `end` in equal steps."""

    def _factor(self, progress: float) -> float:
        return 1.0 + (self._end - 1.0) * progress


class Cosine(_Ramp):
    """From 1 to `end` along half a cosine, slow at both ends (arXiv 1608.03983, without restarts)."""

    def _factor(self, progress: float) -> float:
        return self._end + (1.0 - self._end) * 0.5 * (1.0 + math.cos(math.pi * progress))


class LearningRate:
    """A torch optimizer's learning rates: each group's own times the schedule's factor. schedule: None keeps the rates."""

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedule | None = None) -> None:
        self._optimizer, self._schedule = optimizer, schedule
        self._base = [float(group["lr"]) for group in optimizer.param_groups]

    def follow(self, generation: int, spent: float) -> None:
        """Set the rates of this generation. spent: share of the budget before it."""
        if self._schedule is not None:
            factor = self._schedule(generation, spent)
            for group, base in zip(self._optimizer.param_groups, self._base, strict=True):
                group["lr"] = base * factor

    @property
    def now(self) -> float:
        """The present rate of the first group."""
        return float(self._optimizer.param_groups[0]["lr"])

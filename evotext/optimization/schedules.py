"""Schedules of hyperparameters: each maps the generation, counted from 0, to a factor of the base value.

A schedule counts generations and not the budget spent, so that equal settings make equal runs whatever the budget's unit.
"""

import math
from abc import ABC, abstractmethod

from evotext.validation import NonNegativeFloat, NonNegativeInt, PositiveInt, checked


class Constant:
    """Factor 1 in every generation."""

    def __call__(self, generation: int) -> float:
        """Return the factor."""
        return 1.0


class _Ramp(ABC):
    """A rise from 0 to 1, then a path from 1 to `end`.

    warm_up: generations over which the factor rises evenly to 1. generations: from 0 until it reaches `end`, its last.
    """

    @checked
    def __init__(self, *, generations: PositiveInt, end: NonNegativeFloat, warm_up: NonNegativeInt) -> None:
        if warm_up >= generations:
            raise ValueError(f"warm_up: expected fewer than generations = {generations}, got {warm_up}")
        self._generations, self._end, self._warm_up = generations, end, warm_up

    def __call__(self, generation: int) -> float:
        """Return the factor."""
        if generation < self._warm_up:
            return (generation + 1) / (self._warm_up + 1)
        progress = min(1.0, (generation - self._warm_up) / (self._generations - self._warm_up))
        return self._factor(progress)

    @abstractmethod
    def _factor(self, progress: float) -> float:
        """Return the factor at a share of the way from the warm-up's end to the last generation."""


class Linear(_Ramp):
    """From 1 to `end` in equal steps."""

    def _factor(self, progress: float) -> float:
        return 1.0 + (self._end - 1.0) * progress


class Cosine(_Ramp):
    """From 1 to `end` along half a cosine, slow at both ends (arXiv 1608.03983, without restarts)."""

    def _factor(self, progress: float) -> float:
        return self._end + (1.0 - self._end) * 0.5 * (1.0 + math.cos(math.pi * progress))

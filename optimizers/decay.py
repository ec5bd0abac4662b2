"""Decay of weights that carry no signal: without it, noise makes them wander ever further from the start."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from evotext.validation import PositiveFloat, checked_record


@runtime_checkable
class Decay(Protocol):
    """Acts on each parameter after its step."""

    @property
    def needs_start(self) -> bool:
        """Whether it needs a copy of the starting weights; without one it does nothing."""

    def pull(self, weight: Tensor, start: Tensor, learning_rate: float) -> None:
        """Change `weight` in place."""


class NoDecay:
    """Leaves weights where the step put them."""

    needs_start = False

    def pull(self, weight: Tensor, start: Tensor, learning_rate: float) -> None:
        """Do nothing."""


@checked_record
class Anchored:
    """Decay towards the starting weights, not towards zero (anchored weight decay, arXiv 2605.30148).

        W <- W + lr * rate * (W_0 - W)

    after each step, apart from the optimizer's moments as in AdamW. Keeps a copy of the starting weights: as much memory as
    the weights themselves.
    """

    rate: PositiveFloat

    @property
    def needs_start(self) -> bool:
        """True."""
        return True

    def pull(self, weight: Tensor, start: Tensor, learning_rate: float) -> None:
        """Move back by this share of the way, at most all of it."""
        weight.lerp_(start.to(weight.dtype), min(1.0, learning_rate * self.rate))

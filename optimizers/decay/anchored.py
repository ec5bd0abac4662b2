"""Decay towards the starting weights, not towards zero (anchored weight decay, arXiv 2605.30148)."""

from torch import Tensor

from evotext.validation import PositiveFloat, checked


class Anchored:
    """W <- W + lr * rate * (W_0 - W) after each step, apart from the optimizer's moments as in AdamW.

    Keeps a copy of the starting weights: as much memory as the weights themselves.
    """

    needs_start = True

    @checked
    def __init__(self, *, rate: PositiveFloat) -> None:
        self.rate = rate

    def pull(self, weight: Tensor, start: Tensor, learning_rate: float) -> None:
        """In place. More than the whole way back is never gone."""
        weight.lerp_(start.to(weight.dtype), min(1.0, learning_rate * self.rate))

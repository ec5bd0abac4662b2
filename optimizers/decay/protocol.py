"""What a decay is."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Decay(Protocol):
    """Acts on each parameter after its step."""

    needs_start: bool
    """Whether it is called at all, with the starting weights, of which a copy is kept then."""

    def pull(self, weight: Tensor, start: Tensor, learning_rate: float) -> None:
        """Change `weight` in place."""

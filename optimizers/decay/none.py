"""No pull."""

from torch import Tensor


class NoDecay:
    """Leaves weights where the step put them."""

    needs_start = False

    def pull(self, weight: Tensor, start: Tensor, learning_rate: float) -> None:
        """Nothing."""

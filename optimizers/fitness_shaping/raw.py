"""The member's mean return as it is."""

from torch import Tensor


class Raw:
    """w = the member's mean return. High variance unless mirrored: for comparison with theory."""

    def __call__(self, return_PQ: Tensor) -> Tensor:
        """(P, Q) to (P,)."""
        return return_PQ.double().mean(1)

"""Fitness relative to each task instance's own mean."""

from torch import Tensor

from optimizers.fitness_shaping.rounding import over, without_rounding


class TaskZScore:
    """w = mean over instances of (R - mean of the instance) / std of all R so centred.

    An instance that every member solves, or none, says nothing and adds no noise; hard and easy instances count alike.
    """

    def __call__(self, return_PQ: Tensor) -> Tensor:
        """(P, Q) to (P,)."""
        returns = return_PQ.double()
        centred_PQ = without_rounding(returns - returns.mean(0), return_PQ)
        return over(without_rounding(centred_PQ.mean(1), return_PQ), centred_PQ.std(unbiased=False))

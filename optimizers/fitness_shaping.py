"""From returns to the weights of the members in the pseudo-gradient.

Each strategy maps returns (P members, Q instances) to one weight a member (P,), in float64. Equal returns give exactly 0
in all of them but `Raw`, whose weights are the returns themselves. Differences are rounded to 2**-32 of the largest
return, since an optimizer such as Adam would blow the rounding error of a mean up to a full step.

Shapes: P population, Q task instances (each answered by every member).
"""

from typing import Protocol

import torch
from torch import Tensor


class FitnessShaping(Protocol):
    """Anything that maps returns to weights."""

    def __call__(self, return_PQ: Tensor) -> Tensor:
        """One weight a member; larger for the better."""


class Raw:
    """w = the member's mean return. High variance unless mirrored: for comparison with theory."""

    def __call__(self, return_PQ: Tensor) -> Tensor:
        """See `FitnessShaping`."""
        return return_PQ.double().mean(1)


class ZScore:
    """w = (f - mean f) / std f over the population, f the mean return (population deviation).

    Invariant to affine changes of the reward.
    """

    def __call__(self, return_PQ: Tensor) -> Tensor:
        """See `FitnessShaping`."""
        fitness_P = return_PQ.double().mean(1)
        centred_P = _without_rounding(fitness_P - fitness_P.mean(), return_PQ)
        return _over(centred_P, centred_P.std(unbiased=False))


class CenteredRanks:
    """w = rank of f, scaled to [-0.5, 0.5], ties sharing their mean rank (Salmon et al. 2017 rank ties by order,
    which moves the weights even where all returns are equal). Invariant to monotone changes of f.
    """

    def __call__(self, return_PQ: Tensor) -> Tensor:
        """See `FitnessShaping`."""
        fitness_P = _without_rounding(return_PQ.double().mean(1), return_PQ)
        _, place_P, count_U = fitness_P.unique(return_inverse=True, return_counts=True)
        below_U = count_U.cumsum(0) - count_U
        rank_P = (below_U + (count_U - 1) / 2)[place_P]
        return rank_P.double() / max(1, len(fitness_P) - 1) - 0.5


class TaskZScore:
    """w = mean over instances of (R - mean of the instance) / std of all R so centred.

    An instance that every member solves, or none, says nothing and adds no noise; hard and easy instances count alike.
    """

    def __call__(self, return_PQ: Tensor) -> Tensor:
        """See `FitnessShaping`."""
        returns = return_PQ.double()
        centred_PQ = _without_rounding(returns - returns.mean(0), return_PQ)
        return _over(_without_rounding(centred_PQ.mean(1), return_PQ), centred_PQ.std(unbiased=False))


def _without_rounding(values: Tensor, return_PQ: Tensor) -> Tensor:
    """Round to 2**-32 of the largest return, far above float64's rounding errors and far below any real difference."""
    step = float(return_PQ.abs().max()) * 2.0**-32
    return (values / step).round() * step if step > 0 else torch.zeros_like(values)


def _over(centred: Tensor, spread: Tensor) -> Tensor:
    return centred / spread if spread > 0 else torch.zeros_like(centred)

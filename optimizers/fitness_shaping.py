"""From returns to the weights of the members in the pseudo-gradient.

Each strategy maps returns (P members, Q instances) to one weight a member (P,), in float64. Equal returns give exactly 0
in all of them but `Raw`, whose weights are the returns themselves.

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
        return _standardised(return_PQ.double().mean(1))


class CenteredRanks:
    """w = rank of f, scaled to [-0.5, 0.5], ties sharing their mean rank (Salmon et al. 2017 rank ties by order,
    which moves the weights even where all returns are equal). Invariant to monotone changes of f.
    """

    def __call__(self, return_PQ: Tensor) -> Tensor:
        """See `FitnessShaping`."""
        fitness_P = return_PQ.double().mean(1)
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
        centred_PQ = torch.where((returns == returns[:1]).all(0), 0.0, returns - returns.mean(0))
        spread = centred_PQ.std(unbiased=False)
        return centred_PQ.mean(1) / spread if spread > 0 else torch.zeros(len(returns), dtype=torch.float64)


def _standardised(fitness_P: Tensor) -> Tensor:
    if bool((fitness_P == fitness_P[0]).all()):  # a rounded mean would leave noise where there is no signal
        return torch.zeros_like(fitness_P)
    return (fitness_P - fitness_P.mean()) / fitness_P.std(unbiased=False)

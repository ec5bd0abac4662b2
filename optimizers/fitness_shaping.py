"""Fitness shaping: returns become weights of the members in the pseudo-gradient.

Each function maps returns (P members, Q instances, each answered by every member) to one weight a member (P,), in float64:
larger for the better. Where blocks of members have instances of their own, returns come as (G blocks, P members of a block,
Q instances of a block), and weights are (G, P): means and ranks are those of a block, deviations those of all.
With f the member's mean return over its instances:

    raw             w = f
    z_score         w = (f - mean f) / std f over the population
    centered_ranks  w = rank of f, scaled to [-0.5, 0.5], ties sharing their mean rank
    task_z_score    w = mean over instances of (R - mean of the instance) / std of all R so centred

Equal returns give exactly 0 in all of them but `raw`, whose weights are the returns themselves.
"""

import torch
from torch import Tensor


def raw(return_PQ: Tensor) -> Tensor:
    """Return the member's mean return. High variance unless mirrored: for comparison with theory."""
    return return_PQ.double().mean(-1)


def z_score(return_PQ: Tensor) -> Tensor:
    """Return deviations from the population's mean in its standard deviations, as in ES at scale (2509.24372).

    Invariant to affine changes of the reward.
    """
    fitness_P = return_PQ.double().mean(-1)
    centred_P = _without_rounding(fitness_P - fitness_P.mean(-1, keepdim=True), return_PQ)
    return _over(centred_P, centred_P.std(unbiased=False))


def centered_ranks(return_PQ: Tensor) -> Tensor:
    """Return ranks. OpenAI-ES (1703.03864) ranks ties by order instead, which moves weights where all returns are equal.

    Invariant to monotone changes of f.
    """
    fitness_P = _without_rounding(return_PQ.double().mean(-1), return_PQ)
    below_PP = fitness_P[..., None, :] < fitness_P[..., None]
    equal_PP = fitness_P[..., None, :] == fitness_P[..., None]
    rank_P = below_PP.sum(-1) + (equal_PP.sum(-1) - 1).double() / 2
    return rank_P / max(1, fitness_P.shape[-1] - 1) - 0.5


def task_z_score(return_PQ: Tensor) -> Tensor:
    """Return means relative to each task instance's own, over the deviation of all.

    An instance that every member solves, or none, says nothing and adds no noise; hard and easy instances count alike.
    """
    returns = return_PQ.double()
    centred_PQ = _without_rounding(returns - returns.mean(-2, keepdim=True), return_PQ)
    return _over(_without_rounding(centred_PQ.mean(-1), return_PQ), centred_PQ.std(unbiased=False))


def _without_rounding(values: Tensor, return_PQ: Tensor) -> Tensor:
    """Round to 2**-32 of the largest return, far above float64's rounding errors and far below any real difference.

    An optimizer such as Adam would blow the rounding error of a mean, where all returns are equal, up to a full step.
    """
    step = float(return_PQ.abs().max()) * 2.0**-32
    return (values / step).round() * step if step > 0 else torch.zeros_like(values)


def _over(centred: Tensor, spread: Tensor) -> Tensor:
    """Return the quotient; 0 where nothing differs."""
    return centred / spread if spread > 0 else torch.zeros_like(centred)

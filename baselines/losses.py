"""Objectives of policy-gradient methods, written as losses to minimise; the return is maximised.

Clipped surrogate (PPO, arXiv 1707.06347; asymmetric bounds: DAPO, arXiv 2503.14476; dual clip: arXiv 1912.09729), with
rho = pi / pi_old of a token (GRPO, PPO) or the geometric mean over a sequence (GSPO, arXiv 2507.18071):

    L = -min(rho A, clip(rho, 1 - low, 1 + high) A),  and for A < 0 with dual clip c:  L = min(L, -c A)

KL of the policy from a reference, by sampled tokens (Schulman, "Approximating KL divergence", 2020), d = log ref - log pi:

    k1 = -d        k2 = d^2 / 2        k3 = exp(d) - d - 1

Shapes: B rows, N actions (a row's policy tokens, padded on the right).
"""

from typing import Literal

import torch
from torch import Tensor

from evotext.devices import widest_float

KLEstimator = Literal["k1", "k2", "k3"]
Normalisation = Literal["token", "sequence", "constant"]


def clipped_surrogate(
    ratio: Tensor, advantage: Tensor, clip_low: float, clip_high: float, dual_clip: float | None
) -> Tensor:
    """Return the loss of each action; `ratio` carries the gradient."""
    loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage)
    if dual_clip is None:
        return loss
    return torch.where(advantage < 0, torch.minimum(loss, -dual_clip * advantage), loss)


def kl_divergence(logprob: Tensor, reference: Tensor, estimator: KLEstimator) -> Tensor:
    """Return an estimate of KL(pi || reference) for each action drawn from pi."""
    difference = reference - logprob
    if estimator == "k1":
        return -difference
    if estimator == "k2":
        return difference.square() / 2
    return difference.exp() - difference - 1


def token_weights(mask_BN: Tensor, normalisation: Normalisation, rows: int, max_tokens: int) -> Tensor:
    """Return each action's weight in the loss, so that the loss is a plain weighted sum whatever the micro-batches.

    mask_BN: actions of every row that counts (a dropped row that counts is a row of zeros elsewhere).
    rows: of the whole batch. max_tokens: the longest that an answer can be.
    token: 1 / all actions (DAPO). sequence: 1 / (rows x actions of the row) (GRPO as published).
    constant: 1 / (rows x max_tokens) (Dr. GRPO).
    """
    mask = mask_BN.to(widest_float(mask_BN.device))
    if normalisation == "token":
        return mask / mask.sum().clamp(min=1)
    if normalisation == "sequence":
        return mask / mask.sum(1, keepdim=True).clamp(min=1) / rows
    return mask / (rows * max_tokens)


def minibatch_weights(mask_BN: Tensor, part_K: Tensor) -> Tensor:
    """Return 1 / all actions of these rows at each of them, 0 elsewhere: (B, N)."""
    inside_BN = torch.zeros_like(mask_BN)
    inside_BN[part_K] = mask_BN[part_K]
    return token_weights(inside_BN, "token", rows=len(part_K), max_tokens=1)


def value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip: float | None) -> Tensor:
    """Return half the squared error of each value; with a clip, at least that of the value kept near its old one."""
    loss = (value - target).square()
    if clip is not None:
        kept = old_value + (value - old_value).clamp(-clip, clip)
        loss = torch.maximum(loss, (kept - target).square())
    return 0.5 * loss

"""How much better an action was than expected. Returns are maximised; advantages carry no gradient.

Group-relative (GRPO, arXiv 2402.03300; without the deviation: Dr. GRPO, arXiv 2503.20783; leave-one-out: RLOO,
arXiv 2402.14740), for sample i of a group of G with returns R:

    std        A_i = (R_i - mean R) / (std R + 1e-4), std with G - 1 degrees of freedom
    none       A_i = R_i - mean R
    leave_one_out   A_i = R_i - mean of the others = (R_i - mean R) G / (G - 1)
    batch      A_i = R_i - mean over all groups (REINFORCE; a group may then have one row)
    batch_std  A_i = (R_i - mean) / (std + 1e-4), both over all groups (REINFORCE++, arXiv 2501.03262)
    best       A_i = 1 for the group's best, else 0: fine-tuning on the best of n (RAFT, arXiv 2304.06767)

Generalised advantage estimation (arXiv 1506.02438), over a row's own actions t = 0 ... n - 1 with values V:

    delta_t = r_t + gamma_t V_{t+1} - V_t        A_t = delta_t + gamma_t lambda_t A_{t+1}

V_n is 0 after a terminated episode and the value of the last state after a truncated one.

Shapes: B rows, N actions (a row's policy tokens, padded on the right).
"""

from typing import Literal

import torch
from torch import Tensor

Baseline = Literal["std", "none", "leave_one_out", "batch", "batch_std", "best"]
# Those that compare with the whole batch and not with a group.
GROUPLESS = ("batch", "batch_std")

STD_EPSILON = 1e-4


def group_advantages(return_B: Tensor, group_B: Tensor, baseline: Baseline) -> Tensor:
    """One advantage a row, float64, from the returns of the rows with the same group number.

    A group whose returns are all equal gets exactly 0; for `batch` and `batch_std` that is all rows together.
    """
    if baseline in GROUPLESS:
        return group_advantages(return_B, torch.zeros_like(group_B), "none" if baseline == "batch" else "std")
    _, index_B, size_G = group_B.unique(return_inverse=True, return_counts=True)
    returns = return_B.double()
    total_G = torch.zeros(len(size_G), dtype=torch.float64).index_add_(0, index_B, returns)
    centred_B = returns - (total_G / size_G)[index_B]
    low_G = torch.full_like(total_G, torch.inf).scatter_reduce_(0, index_B, returns, "amin")
    high_G = torch.full_like(total_G, -torch.inf).scatter_reduce_(0, index_B, returns, "amax")
    centred_B = torch.where((low_G == high_G)[index_B], 0.0, centred_B)  # a rounded mean would leave noise
    if baseline == "none":
        return centred_B
    if baseline == "best":
        best_B = (returns == high_G[index_B]) & (low_G < high_G)[index_B]
        return torch.where(centred_B.isfinite(), best_B.double(), centred_B)
    others_G = (size_G - 1).clamp(min=1)
    if baseline == "leave_one_out":
        return centred_B * (size_G / others_G)[index_B]
    square_G = torch.zeros_like(total_G).index_add_(0, index_B, centred_B**2)
    return centred_B / ((square_G / others_G).sqrt() + STD_EPSILON)[index_B]


def generalised_advantages(
    reward_BN: Tensor, value_BN: Tensor, bootstrap_B: Tensor, mask_BN: Tensor, decay_BN: Tensor, discount_BN: Tensor
) -> Tensor:
    """Advantages (B, N) over policy tokens; 0 where the mask is False.

    bootstrap_B: the value of the state after the last action, 0 for a terminated episode.
    discount_BN, decay_BN: gamma and lambda from action t to the next; all gamma (lambda) when they count tokens, 1
    within a turn when they count turns.
    """
    advantage_BN = torch.zeros_like(value_BN)
    following_B = torch.zeros_like(bootstrap_B)  # advantage of the next action
    next_value_B = bootstrap_B.clone()
    for t in range(reward_BN.shape[1] - 1, -1, -1):
        here_B = mask_BN[:, t]
        delta_B = reward_BN[:, t] + discount_BN[:, t] * next_value_B - value_BN[:, t]
        estimate_B = delta_B + discount_BN[:, t] * decay_BN[:, t] * following_B
        following_B = torch.where(here_B, estimate_B, following_B)
        next_value_B = torch.where(here_B, value_BN[:, t], next_value_B)
        advantage_BN[:, t] = torch.where(here_B, estimate_B, 0.0)
    return advantage_BN


def rates_between(
    mask_BN: Tensor, turn_BN: Tensor, gamma: float, gae_lambda: float, unit: Literal["token", "turn"]
) -> tuple[Tensor, Tensor]:
    """Gamma and lambda from each action to the next (float64): everywhere, or only from the last action of a turn."""
    discount_BN = torch.full(mask_BN.shape, gamma, dtype=torch.float64, device=mask_BN.device)
    decay_BN = torch.full_like(discount_BN, gae_lambda)
    if unit == "turn":
        same_turn_BN = torch.zeros_like(mask_BN)
        same_turn_BN[:, :-1] = (turn_BN[:, 1:] == turn_BN[:, :-1]) & mask_BN[:, 1:]
        discount_BN[same_turn_BN] = 1.0
        decay_BN[same_turn_BN] = 1.0
    return discount_BN, decay_BN


def whitened(values_BN: Tensor, mask_BN: Tensor) -> Tensor:
    """Zero mean and unit (population) standard deviation over the masked entries; others stay 0."""
    chosen = values_BN[mask_BN]
    if chosen.numel() < 2:
        return values_BN
    return torch.where(mask_BN, (values_BN - chosen.mean()) / (chosen.std(unbiased=False) + 1e-8), 0.0)

"""Group-relative advantages: how much better an episode was than others of its instance. Returns are maximised.

Group-relative (GRPO, arXiv 2402.03300; without the deviation: Dr. GRPO, arXiv 2503.20783; leave-one-out: RLOO,
arXiv 2402.14740), for sample i of a group of G with returns R:

    std        A_i = (R_i - mean R) / (std R + 1e-4), std with G - 1 degrees of freedom
    none       A_i = R_i - mean R
    leave_one_out   A_i = R_i - mean of the others = (R_i - mean R) G / (G - 1)
    batch      A_i = R_i - mean over all groups (REINFORCE; a group may then have one row)
    batch_std  A_i = (R_i - mean) / (std + 1e-4), both over all groups (REINFORCE++, arXiv 2501.03262)
    best       A_i = 1 for the group's best, else 0: fine-tuning on the best of n (RAFT, arXiv 2304.06767)

Shapes: B rows, G groups.
"""

from typing import Literal

import torch
from torch import Tensor

Baseline = Literal["std", "none", "leave_one_out", "batch", "batch_std", "best"]
# Baselines that compare with the whole batch and not with a group.
GROUPLESS = ("batch", "batch_std")

STD_EPSILON = 1e-4


def group_advantages(return_B: Tensor, group_B: Tensor, baseline: Baseline) -> Tensor:
    """Return one advantage a row, float64, from the returns of the rows with the same group number.

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

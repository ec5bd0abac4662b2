"""Soft punishment of answers that are nearly too long (DAPO, arXiv 2503.14476)."""

import torch
from torch import Tensor


def overlong_penalty(length_B: Tensor, max_tokens: int, buffer: int, factor: float) -> Tensor:
    """Return the penalty of each return (float64): 0 up to max_tokens - buffer, then evenly to -factor at max_tokens.

    length_B: tokens of the episode's longest answer.
    """
    beyond_B = (length_B.double() - (max_tokens - buffer)) / buffer
    return -factor * beyond_B.clamp(0.0, 1.0)


def longest_answers(policy_mask_BT: Tensor, turn_BT: Tensor) -> Tensor:
    """Return the policy's tokens in the longest turn of each episode, (B,)."""
    turns = max(1, int(turn_BT.max()) + 1)
    written = torch.zeros(len(turn_BT), turns, dtype=torch.int64)
    written.scatter_add_(1, turn_BT.clamp(min=0), policy_mask_BT.long())
    return written.amax(1)

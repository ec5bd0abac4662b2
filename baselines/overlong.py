"""Soft punishment of answers that are nearly too long (DAPO, arXiv 2503.14476, equation 13)."""

from torch import Tensor


def overlong_penalty(length_B: Tensor, max_tokens: int, buffer: int, factor: float) -> Tensor:
    """What is added to each return (float64): 0 up to max_tokens - buffer tokens, then evenly down to -factor at max_tokens.

    length_B: tokens that the policy wrote in the episode.
    """
    beyond_B = (length_B.double() - (max_tokens - buffer)) / buffer
    return -factor * beyond_B.clamp(0.0, 1.0)

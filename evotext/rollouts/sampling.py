"""Samples tokens from logits.

Inverse-CDF sampling takes one uniform number a token, keyed by (seed, generation, row, position), so that a row's text
depends neither on the rows beside it nor on how a batch was split.
"""

import math

import torch
from torch import Tensor

BLOCK = 128
"""Scores among which the greatest is searched for by its place."""


def choose_tokens(
    logits_BV: Tensor,
    uniform_B: Tensor | None,
    temperature: float,
    logprobs: bool,
    *,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> tuple[Tensor, Tensor | None]:
    """Return token ids (B,) and, if asked for, their float32 log-probabilities (B,) in the distribution they were drawn from.

    Temperature 0 takes the most probable token (log-probability then at temperature 1); otherwise `uniform_B`, float64
    in [0, 1), picks from softmax(logits / temperature), truncated to the tokens that `min_p` and then `top_p` keep.
    """
    if temperature == 0.0:
        token_B = greatest(logits_BV)
        if not logprobs:
            return token_B, None
    scores_BV = logits_BV.float()
    if temperature not in (0.0, 1.0):
        scores_BV = scores_BV / temperature
    if temperature != 0.0:
        assert uniform_B is not None
        scores_BV = truncated(scores_BV, top_p, min_p)
        cdf_BV = scores_BV.softmax(-1).cumsum_(-1)
        total_B1 = cdf_BV[:, -1:]
        # right=True finds the first entry above the threshold, so a token of probability zero is never taken; the
        # threshold stays below the total, to which the product could round up.
        threshold_B1 = torch.minimum(
            uniform_B.to(cdf_BV)[:, None] * total_B1, total_B1.nextafter(total_B1.new_zeros(()))
        )
        token_B = torch.searchsorted(cdf_BV, threshold_B1, right=True)[:, 0]
    if not logprobs:
        return token_B, None
    return token_B, scores_BV.gather(1, token_B[:, None])[:, 0] - scores_BV.logsumexp(-1)


def greatest(scores_BV: Tensor) -> Tensor:
    """Return the place (B,) of the greatest score: the first of equal ones, or of NaN.

    On a CPU torch searches for a maximum's place many times as slowly as for its value, so that the value says where to search.
    """
    whole = scores_BV.shape[1] // BLOCK * BLOCK
    if scores_BV.device.type != "cpu" or not whole:
        return scores_BV.argmax(-1)
    greatest_of_blocks = [scores_BV[:, :whole].unflatten(1, (-1, BLOCK)).amax(-1)]
    if whole < scores_BV.shape[1]:
        greatest_of_blocks.append(scores_BV[:, whole:].amax(-1, keepdim=True))
    block_B1 = torch.cat(greatest_of_blocks, 1).argmax(-1, keepdim=True)
    place_BW = (block_B1 * BLOCK + torch.arange(BLOCK)).clamp_(max=scores_BV.shape[1] - 1)
    return place_BW[:, 0] + scores_BV.gather(1, place_BW).argmax(-1)


def truncated(scores_BV: Tensor, top_p: float, min_p: float) -> Tensor:
    """Return the scores with those of the tokens that are never drawn at minus infinity.

    min_p (Nguyen et al. 2024, arXiv 2407.01082) drops tokens of less than this share of the greatest probability. Of the
    rest, top_p (Holtzman et al. 2020, arXiv 1904.09751) keeps the fewest most probable ones of at least this probability
    together: those before which less than that has been reached.
    """
    if min_p > 0.0:
        scores_BV = scores_BV.masked_fill(scores_BV < scores_BV.amax(-1, keepdim=True) + math.log(min_p), -torch.inf)
    if top_p < 1.0:
        sorted_BV, token_BV = scores_BV.sort(dim=-1, descending=True, stable=True)
        probability_BV = sorted_BV.softmax(-1)
        dropped_BV = probability_BV.cumsum(-1) - probability_BV >= top_p
        dropped_BV[:, 0] = False  # whatever the rounding
        scores_BV = scores_BV.masked_fill(dropped_BV.scatter(-1, token_BV, dropped_BV.clone()), -torch.inf)
    return scores_BV

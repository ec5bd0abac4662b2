"""Choosing tokens from logits.

Inverse-CDF sampling takes one uniform number a token, keyed by (seed, generation, row, position), so that a row's text
depends neither on the rows beside it nor on how a batch was split.
"""

import torch
from torch import Tensor


def choose_tokens(
    logits_BV: Tensor, uniform_B: Tensor | None, temperature: float, logprobs: bool
) -> tuple[Tensor, Tensor | None]:
    """Return token ids (B,) and, if asked for, their float32 log-probabilities (B,).

    Temperature 0 takes the most probable token (log-probability then at temperature 1); otherwise `uniform_B`, float64
    in [0, 1), picks from softmax(logits / temperature).
    """
    scores_BV = logits_BV.float()
    if temperature not in (0.0, 1.0):
        scores_BV = scores_BV / temperature
    if temperature == 0.0:
        token_B = scores_BV.argmax(-1)
    else:
        assert uniform_B is not None
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

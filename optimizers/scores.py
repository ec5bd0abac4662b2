"""From scores of episodes to the weights of a population's members.

Shapes: N draws (pairs, or members), B rows, A actions (a row's policy tokens).
"""

import torch
from torch import Tensor

# Of a normal distribution: its standard deviation over its median absolute deviation.
NORMAL = 1.4826


def clipped(delta_N: Tensor, deviations: float | None) -> tuple[Tensor, dict[str, float]]:
    """Deltas cut to so many robust standard deviations about their median; None cuts nothing. With figures.

    The median stays where it is, so that a symmetric distribution keeps its mean.
    """
    figures = {"scored/delta_std": float(delta_N.std(unbiased=False)), "scored/clipped": 0.0}
    if deviations is None:
        return delta_N, figures
    middle = delta_N.median()
    bound = deviations * NORMAL * (delta_N - middle).abs().median()
    if not bound > 0:  # most are equal: there is no telling what is far out
        return delta_N, figures
    kept_N = delta_N.clamp(middle - bound, middle + bound)
    figures["scored/clipped"] = float((kept_N != delta_N).double().mean())
    return kept_N, figures


def score_weights(logprob_BA: Tensor, old_BA: Tensor, advantage_BA: Tensor, low: float, high: float) -> Tensor:
    """What each action's log-probability weighs, so that the gradient of the weighted sum is that of the clipped surrogate.

    That of min(rho A, clip(rho, 1 - low, 1 + high) A) with rho = pi / pi_old is rho A grad log pi, or 0 where the clip
    binds: beyond 1 + high of an action that was good, below 1 - low of one that was bad.
    """
    ratio_BA = (logprob_BA - old_BA).exp()
    binds_BA = torch.where(advantage_BA > 0, ratio_BA > 1 + high, ratio_BA < 1 - low)
    return torch.where(binds_BA, 0.0, ratio_BA * advantage_BA)

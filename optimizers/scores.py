"""Turns scores of episodes into weights of a population's members: the estimator of `optimizers/scored_es.py`, in steps.

Shapes: P members, N draws (pairs, or members), K episodes a member, M episodes to choose from, B rows, A actions (a row's
policy tokens).
"""

import torch
from torch import Tensor

from evotext.distributed import collectives
from evotext.keys.philox import Purpose, stream_id, uniform
from evotext.noise import ForwardNoise, NoiseKey
from evotext.policy.actions import Actions

from .scoring import Scoring

# The standard deviation of a normal distribution over its median absolute deviation.
NORMAL = 1.4826


def episodes_to_score(scored_M: Tensor, length_B: Tensor, key: NoiseKey, per_draw: int) -> Tensor:
    """Return the episodes that each draw scores, (N, K). Each is scored equally often, give or take one.

    Episodes of like length go together, so that little padding is computed; the noise knows nothing of that.
    """
    per_draw = min(per_draw, len(scored_M))
    wanted = key.draws * per_draw
    rounds = torch.arange(-(-wanted // len(scored_M)))
    order = uniform(key.seed, stream_id(Purpose.SHUFFLING), key.generation, rounds, len(scored_M)).argsort(1)
    row_X = scored_M[order.flatten()[:wanted]]
    return row_X[length_B[row_X].argsort(stable=True)].view(key.draws, per_draw)


def deltas(
    scoring: Scoring,
    actions: Actions,
    weight_BA: Tensor,
    row_NK: Tensor,
    key: NoiseKey,
    noise: ForwardNoise,
    *,
    temperature: float,
    base_B: Tensor,
) -> Tensor:
    """Return the slope of the mean score of its episodes along each draw, by differences: (N,), float64.

    weight_BA: what each action's log-probability weighs in an episode's score. base_B: the unperturbed policy's scores,
    which are read where there are no mirrored pairs. Processes share the members and exchange a number for each.
    """
    score_P = torch.zeros(key.population, dtype=torch.float64)
    row_PK = row_NK.repeat_interleave(key.members_per_draw, 0)
    members = range(key.population)
    for part in scoring.score(actions, row_PK, temperature=temperature, members=members, noise=noise):
        logprob_PKA = part.logprob_PKN.cpu().double()
        score_P[part.place_P] += (weight_BA[part.row_PK][..., : logprob_PKA.shape[-1]] * logprob_PKA).sum((1, 2))
    collectives.all_reduce([score_P])
    reference_N = score_P[1::2] if key.antithetic else base_B[row_NK].sum(1)
    score_N = score_P[:: key.members_per_draw] - reference_N
    return score_N / (key.members_per_draw * key.sigma * row_NK.shape[1])


def member_weights(delta_N: Tensor, key: NoiseKey, deviations: float | None) -> tuple[Tensor, dict[str, float]]:
    """Return each member's weight in the pseudo-gradient, P times its share: (P,). With metrics."""
    kept_N, figures = clipped(delta_N, deviations)
    if key.antithetic:
        return torch.stack((kept_N, -kept_N), 1).flatten(), figures
    if key.draws > 1:  # curvature raises or lowers all alike
        kept_N = (kept_N - kept_N.mean()) * (key.draws / (key.draws - 1))
    return kept_N, figures


def clipped(delta_N: Tensor, deviations: float | None) -> tuple[Tensor, dict[str, float]]:
    """Clip deltas at so many robust standard deviations from their median; None clips nothing. With metrics.

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
    """Return weights of the actions' log-probabilities whose sum has the clipped surrogate's gradient.

    The gradient of min(rho A, clip(rho, 1 - low, 1 + high) A) with rho = pi / pi_old is rho A grad log pi, or 0 where the clip
    binds: beyond 1 + high of an action that was good, below 1 - low of one that was bad.
    """
    ratio_BA = (logprob_BA - old_BA).exp()
    binds_BA = torch.where(advantage_BA > 0, ratio_BA > 1 + high, ratio_BA < 1 - low)
    return torch.where(binds_BA, 0.0, ratio_BA * advantage_BA)

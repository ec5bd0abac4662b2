"""The distribution of the policy gradient's energy without a backward pass, for models that it does not fit.

Along noise E on one group of parameters, whose entries are uncorrelated and have variance 1, the slope of the objective is
<G, E>, with G the group's part of the gradient, and the mean of its square is |G|^2. The slope is a central difference: both
members of a mirrored pair score every episode that has an advantage. Memory is that of inference; time is that of
2 x draws x groups forward passes over the episodes.

Shapes: B episodes, M those with an advantage, N draws, A actions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evotext.noise import NoiseKey
from evotext.policy.actions import Actions

from ..perturbations import LowRank
from ..perturbed import PerturbedNetwork
from ..scores import deltas
from ..scoring import Scoring
from ..selection import excluding

# The relative variance of one draw's square is 2 + 6 / rank: a higher rank costs little beside the forward passes.
RANK = 8


@dataclass(frozen=True, kw_only=True)
class MeasuredEnergy:
    """A group's part of the gradient."""

    energy: float
    """Squared norm of its gradient: the mean over draws."""
    error: float
    """Standard error of the mean."""
    dimensions: int
    """Number of its weights."""


def energies_by_differences(
    scoring: Scoring,
    network: PerturbedNetwork,
    groups: Mapping[str, Sequence[str]],
    actions: Actions,
    advantage_B: Tensor,
    *,
    temperature: float,
    sigma: float,
    draws: int,
    seed: int,
) -> dict[str, MeasuredEnergy]:
    """Return the energy of the gradient of (1 / B) sum_j A_j l_j in each group of parameters, the greatest first.

    groups: names of parameters that may be perturbed. sigma: as small as rounding allows. draws: at least 2.
    """
    scored_M = (advantage_B != 0).nonzero()[:, 0]
    row_NM = scored_M.expand(draws, -1)
    weight_BA = advantage_B[:, None] * actions.mask_BN.cpu()
    everything = [name for name, _ in network.network.named_parameters()]
    found = {}
    for place, (group, names) in enumerate(groups.items()):
        part = PerturbedNetwork(network.network, exclude=excluding(everything, names))
        key = NoiseKey(seed=seed, generation=place, population=2 * draws, antithetic=True, sigma=sigma)
        noise = LowRank(rank=RANK, vectors="full").draw(part, key)
        delta_N = deltas(
            scoring, actions, weight_BA, row_NM, key, noise, temperature=temperature, base_B=weight_BA.new_zeros(0)
        )
        square_N = (delta_N * len(scored_M) / len(advantage_B)).square()
        found[group] = MeasuredEnergy(
            energy=float(square_N.mean()),
            error=float(square_N.std() / draws**0.5),
            dimensions=sum(torch.Size(part.parameters[name].shape).numel() for name in names),
        )
    return dict(sorted(found.items(), key=lambda item: -item[1].energy))

"""One generation of an evolution strategy without a task: settings, and episodes with the returns that a test wants."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from evotext.optimization.schedules import Constant
from evotext.types import Cost, Ending, RolloutPlan, Trajectories
from optimizers import EvolutionStrategy
from optimizers.decay import NoDecay
from optimizers.fitness_shaping import z_score
from optimizers.perturbations import LowRank
from optimizers.racing import Racing
from optimizers.resampling import Resampling

# Settings that no test is about unless it says so.
PLAIN: dict[str, Any] = {
    "members_per_instance": None,
    "common_random_numbers": False,
    "sigma_share": 0.15,
    "exclude": [],
    "select": None,
    "needs_adapter": False,
    "narrow_weights": "masters",
    "update": "repeated",
    "sigma_schedule": Constant(),
    "learning_rate_schedule": Constant(),
    "decay": NoDecay(),
    "resampling": Resampling(every=1),
    "racing": Racing(pairs=None, candidates=4),
    "top_p": 1.0,
    "min_p": 0.0,
}

POPULATION, PROMPTS, SIGMA, RATE = 8, 3, 0.1, 0.7


def eggroll(**changes: Any) -> EvolutionStrategy:
    """Rank 2 with noise on vectors, z-scores and a plain step, so that formulas can be written out."""
    settings = {
        "population": POPULATION,
        "prompts": PROMPTS,
        "sigma": SIGMA,
        "antithetic": True,
        "temperature": 1.0,
        "perturbation": LowRank(rank=2, vectors="full"),
        "fitness_shaping": z_score,
        "optimizer": partial(torch.optim.SGD, lr=RATE),
    }
    return EvolutionStrategy(**PLAIN | settings | changes)


def told(plan: RolloutPlan, return_B: Tensor) -> Trajectories:
    """Episodes of one token with these returns."""
    rows = len(plan.instances)
    nothing_B1, no_B = torch.zeros(rows, 1, dtype=torch.int64), torch.zeros(rows, dtype=torch.bool)
    return Trajectories(
        plan=plan,
        tokens_BT=nothing_B1,
        length_B=torch.ones(rows, dtype=torch.int64),
        policy_mask_BT=nothing_B1 == 0,
        turn_BT=nothing_B1,
        reward_BT=return_B[:, None].float(),
        return_B=return_B.double(),
        success_B=no_B,
        ending_B=torch.full((rows,), Ending.TASK),
        has_tokens_B=~no_B,
        overlong_B=no_B,
        cost=Cost(),
        transcripts=(),
    )

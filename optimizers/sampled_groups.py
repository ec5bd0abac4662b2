"""Episodes that the unperturbed policy samples, several to an instance, and their advantages within these groups.

Shapes: B rows, ordered by group.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from evotext.policy.advantages import Baseline, group_advantages
from evotext.types import RolloutPlan, Sampling, Trajectories


def sampled_groups(
    instances: Sequence[int], *, group_size: int, temperature: float, seed: int, generation: int
) -> RolloutPlan:
    """Return the plan of `group_size` episodes of each instance; no row is perturbed."""
    return RolloutPlan(
        seed=seed,
        generation=generation,
        instances=tuple(instance for instance in instances for _ in range(group_size)),
        groups=tuple(group for group in range(len(instances)) for _ in range(group_size)),
        sampling=Sampling(temperature=temperature),
        logprobs=True,
        groups_a_part=1,
    )


def advantages(batch: Trajectories, baseline: Baseline, *, unfinished: str = "masked") -> Tensor:
    """Return (B,), float64; 0 for episodes that are not compared, or whose group has a return that is not finite.

    unfinished: `masked` leaves out episodes that a limit cut off; `counted` compares them, all but faults of the environment.
    """
    compared_B = ~(batch.faulty_B if unfinished == "counted" else batch.truncated_B)
    groups = torch.tensor(batch.plan.groups)
    advantage_B = torch.zeros(len(groups), dtype=torch.float64)
    advantage_B[compared_B] = group_advantages(batch.return_B[compared_B], groups[compared_B], baseline)
    return advantage_B.nan_to_num(0.0, 0.0, 0.0)

"""Plan and figures of a generation of a population, whoever places its members.

All members answer the same instances, or each block of members has its own: blocks of equal size, in the members' order.
Members are compared within their block alone.

Shapes: G blocks, M members of a block, Q instances of a block.
"""

from collections.abc import Sequence

from torch import Tensor

from evotext.noise import PopulationNoise
from evotext.types import Credit, RolloutPlan, Sampling

# Steps along pseudo-gradients that are mostly noise (their cosine with the gradient is some thousandths) add up only over many.
FEWEST_GENERATIONS = 30


def population_plan(
    noise: PopulationNoise,
    instances: Sequence[int],
    *,
    population: int,
    seed: int,
    generation: int,
    sampling: Sampling,
    block: int | None = None,
    common_random_numbers: bool = False,
) -> RolloutPlan:
    """Return the plan of every member answering every instance of its block, rows ordered by member.

    instances: of all blocks, Q of each. block: how many members share instances; None: all of them.
    common_random_numbers: members 2i and 2i + 1, a mirrored pair, sample their answers to an instance with the same numbers.
    """
    block = block or population
    prompts = len(instances) * block // population
    assert prompts * population == len(instances) * block, "blocks have equally many instances"
    group_B = [member // block * prompts + i for member in range(population) for i in range(prompts)]
    return RolloutPlan(
        seed=seed,
        generation=generation,
        instances=tuple(instances[group] for group in group_B),
        groups=tuple(group_B),
        sampling=sampling,
        streams=tuple(member // 2 * prompts + i for member in range(population) for i in range(prompts))
        if common_random_numbers
        else None,
        members=tuple(member for member in range(population) for _ in range(prompts)),
        noise=noise,
        tokens=False,
        groups_a_part=1 if block == population else prompts,  # fewer instances, or fewer whole blocks
        generations_wanted=FEWEST_GENERATIONS,
    )


def member_credit(fitness_P: Tensor, plan: RolloutPlan) -> Credit:
    """Return what each row of the plan counted for: its member's shaped fitness."""
    assert plan.members is not None, "a population's plan has members"
    return Credit(name="fitness", value_B=fitness_P.cpu()[list(plan.members)])


def fitness_metrics(return_GMQ: Tensor) -> dict[str, float]:
    """Return the figures of the members' mean returns, and of the instances. return_GMQ: (..., M, Q), of any blocks."""
    fitness_P = return_GMQ.mean(-1)
    return {
        "fitness/mean": float(fitness_P.mean()),
        "fitness/std": float(fitness_P.std(unbiased=False)),
        "fitness/best": float(fitness_P.max()),
        "frac_tasks_without_signal": float((return_GMQ == return_GMQ[..., :1, :]).all(-2).double().mean()),
    }

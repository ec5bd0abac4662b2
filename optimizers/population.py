"""The plan and metrics of a generation whose members all answer the same instances."""

from collections.abc import Sequence

from torch import Tensor

from evotext.noise import PopulationNoise
from evotext.types import RolloutPlan, Sampling


def population_plan(
    noise: PopulationNoise,
    instances: Sequence[int],
    *,
    population: int,
    seed: int,
    generation: int,
    temperature: float,
) -> RolloutPlan:
    """Return the plan of every member answering every instance, rows ordered by member."""
    return RolloutPlan(
        seed=seed,
        generation=generation,
        instances=tuple(instances) * population,
        groups=tuple(range(len(instances))) * population,
        sampling=Sampling(temperature=temperature),
        members=tuple(member for member in range(population) for _ in instances),
        noise=noise,
        tokens=False,
    )


def fitness_metrics(return_PQ: Tensor) -> dict[str, float]:
    """Return the figures of the members' mean returns, and of the instances. return_PQ: P members, Q instances."""
    fitness_P = return_PQ.mean(1)
    return {
        "fitness/mean": float(fitness_P.mean()),
        "fitness/std": float(fitness_P.std(unbiased=False)),
        "fitness/best": float(fitness_P.max()),
        "frac_tasks_without_signal": float((return_PQ == return_PQ[:1]).all(0).double().mean()),
    }

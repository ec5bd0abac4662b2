"""A sweep of sigma: members' returns, and the instances that cannot tell members apart.

Every member of a small population answers the same instances, as EGGROLL has it. The signal's share of the fitness variance
is the reliability of a member's fitness: the correlation, over members, of the mean returns on two halves of the
instances, stepped up to all of them by the Spearman-Brown formula. 0 says that what a member earns is chance.

Shapes: P members, Q instances.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from evotext.keys.instances import validation_instances
from evotext.noise import NoiseKey, Perturbation
from evotext.rollouts.collector import Collector
from evotext.types import Sampling

from ..perturbed import PerturbedNetwork
from ..population import population_plan


@dataclass(frozen=True, kw_only=True)
class SigmaFigures:
    """A population at one sigma."""

    sigma: float
    """Scale of the perturbation."""
    success: float
    """Mean success of the members."""
    better: float
    """Share of members that earn more than the start on the same instances."""
    dead: float
    """Share of instances on which every member gets the same return, below what the task can pay."""
    solved: float
    """Share of instances that every member solves."""
    signal: float
    """Share of the fitness variance that is not chance."""


def reliability(return_PQ: Tensor) -> float:
    """Return the reliability of the members' mean returns, 0 to 1; 0 where members or instances are too few or alike."""
    halves = return_PQ[:, 0::2].mean(1), return_PQ[:, 1::2].mean(1)
    if return_PQ.shape[1] < 2 or min(float(half.std(unbiased=False)) for half in halves) == 0.0:
        return 0.0
    r = float(torch.corrcoef(torch.stack(halves))[0, 1])
    return max(0.0, 2 * r / (1 + r)) if r > -1 else 0.0


def sweep(
    collector: Collector,
    network: PerturbedNetwork,
    perturbation: Perturbation,
    *,
    sigmas: list[float],
    members: int,
    instances: int,
    seed: int,
) -> list[SigmaFigures]:
    """Run greedy episodes of every member on the same validation instances, for each sigma in turn."""
    chosen = validation_instances(instances)

    def earned(sigma: float, count: int) -> tuple[Tensor, Tensor]:
        key = NoiseKey(seed=seed, generation=0, population=count, antithetic=False, sigma=sigma)
        noise = perturbation.draw(network, key)
        plan = population_plan(
            noise, chosen, population=count, seed=seed, generation=0, sampling=Sampling(temperature=0.0)
        )
        batch = collector.collect(plan)
        assert batch.success_B is not None, "the task of a probe knows success"
        return batch.return_B.view(count, -1), batch.success_B.view(count, -1)

    start_1Q, _ = earned(1e-12, 1)
    figures = []
    for sigma in sigmas:
        return_PQ, success_PQ = earned(sigma, members)
        alike_Q = (return_PQ == return_PQ[:1]).all(0)
        figures.append(
            SigmaFigures(
                sigma=sigma,
                success=float(success_PQ.double().mean()),
                better=float((return_PQ.mean(1) > start_1Q.mean()).double().mean()),
                dead=float((alike_Q & ~success_PQ.all(0)).double().mean()),
                solved=float(success_PQ.all(0).double().mean()),
                signal=reliability(return_PQ),
            )
        )
    return figures

"""Selects, before a population's first generation, the matrices that it perturbs.

A population's own episodes have no gradient to measure: its members act greedily and differ in their weights. So the first
generation of a run is played by the unperturbed policy, by sampling; one backward pass over its episodes says where the
policy gradient's energy lies (optimizers/selection.py). It is a generation of its own in all records, is charged for its
episodes and operations, and moves nothing. From then on the noise is on the matrices that hold `select` of the energy.
"""

import time
from dataclasses import replace

from evotext.keys.instances import train_instances
from evotext.policy.actions import actions_of
from evotext.types import Cost, Outcome, RolloutPlan, Trajectories, UpdateReport

from .guide import Guide
from .sampled_groups import advantages, sampled_groups
from .selection import choose, energies_of, policy_gradient

# Episodes that are played: as many instances, each so often. The best of a group is what its gradient raises.
PROMPTS, GROUP_SIZE, TEMPERATURE = 32, 8, 1.0


def preselection_plan(seed: int, generation: int) -> RolloutPlan:
    """Return the plan of the episodes that are measured."""
    instances = train_instances(seed, generation, PROMPTS)
    plan = sampled_groups(instances, group_size=GROUP_SIZE, temperature=TEMPERATURE, seed=seed, generation=generation)
    return replace(plan, groups_a_part=0)  # a budget without room for all of it has none for what follows


def preselected(guide: Guide, batch: Trajectories, share: float) -> tuple[list[str], UpdateReport]:
    """Return the parameters that hold this share of the gradient's energy, and what is to be told of the generation.

    All that may move, where no episode differs from its group.
    """
    begin, network, advantage_B = time.perf_counter(), guide.network.network, advantages(batch, "best")
    if not (advantage_B != 0).any():
        line = "select: no episode differs from its group, so that there is no gradient to choose by: all matrices move"
        return list(guide.network.parameters), UpdateReport(outcome=Outcome.HELD, notes=(line,), cost_is_fixed=True)
    actions = actions_of(batch, next(network.parameters()).device)
    gradient, cost = policy_gradient(network, actions, advantage_B, temperature=TEMPERATURE)
    flops = guide.look(batch)
    energies = energies_of(gradient, guide.network, guide.perturbation, guide.basis)
    chosen = choose(energies, share)
    report = UpdateReport(
        outcome=Outcome.HELD,
        metrics={"dimensions": float(sum(energies[name].dimensions for name in chosen))},
        cost=cost + Cost(flops=flops, update_seconds=time.perf_counter() - begin),
        cost_is_fixed=True,
    )
    return list(chosen), report

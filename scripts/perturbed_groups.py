"""Measures what perturbed members would bring to GRPO's groups, and what the best of many members are worth.

    python scripts/perturbed_groups.py env=recall probe.prompts=64

Prints two tables as Markdown (docs/results/perturbed-groups.md). The first has the groups of one generation of GRPO, sampled
from the policy and from members of a population, one an answer: how many groups are dead, and how far the members' answers are
off-policy. The second has the mean of the k best of 256 random members on held-out instances.

Shapes: B rows, P members, Q instances.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from omegaconf import DictConfig
from torch import Tensor

from evotext.cli.command import run_hydra
from evotext.cli.errors import configuration
from evotext.cli.fitting import fitting_model
from evotext.cli.targets import build
from evotext.keys.instances import train_instances, validation_instances
from evotext.noise import NoiseKey
from evotext.policy.actions import actions_of
from evotext.rollouts.collector import Collector
from evotext.runner.preflight import choose_device, prepare_torch, rows_at_once
from evotext.types import RolloutPlan, Sampling, Trajectories
from optimizers.perturbations import LowRank
from optimizers.perturbed import PerturbedNetwork
from optimizers.population import population_plan
from optimizers.sampled_groups import sampled_groups
from optimizers.scoring import Scoring

# Answers to an instance, as of GRPO as shipped.
GROUP = 8
SIGMAS, TEMPERATURES = (0.0025, 0.005, 0.01, 0.02), (1.0, 1.3)
# Random members, the instances that they are chosen by, the instances that the chosen are held to, and how many are taken.
MEMBERS, CHOSEN_BY, HELD_TO, BEST = 256, 16, 256, (1, 4, 16, 64)
NOISE = LowRank(rank=1, vectors="frozen")


def main(config: DictConfig) -> None:
    """Measure and print."""
    with configuration():
        prepare_torch(config.threads)
        device = choose_device(config.device)
        rows = rows_at_once(config.rows, device)
        task, source, adapter = build(config, "env"), build(config, "model"), build(config, "adapter")
        model = adapter.attach(fitting_model(config, source, task, device))
    collector, network = Collector(model, task, rows=rows, even=config.rows is None), PerturbedNetwork(model.network)
    print(
        f"| `{task.name}`: groups of | success | dead groups | all failed | nats an episode | effective share | seconds |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, plan in plans(network, config.probe.prompts, config.seed):
        begin = time.perf_counter()
        batch = collector.collect(plan)
        seconds = time.perf_counter() - begin
        print(f"| {name} | {figures(batch, Scoring(model.network, rows=rows), plan)} | {seconds:.1f} |", flush=True)
    print(
        f"\n| `{task.name}`, sigma | start | {' | '.join(f'best {k}' for k in BEST)} |\n|---|---|{'---|' * len(BEST)}"
    )
    for sigma in SIGMAS[1:]:
        print(
            f"| {sigma:g} | {' | '.join(f'{s:.3f}' for s in merged(collector, network, sigma, config.seed))} |",
            flush=True,
        )


def plans(network: PerturbedNetwork, count: int, seed: int) -> Iterator[tuple[str, RolloutPlan]]:
    """Yield the same instances answered by the policy at each temperature, and by members at each sigma."""
    instances = validation_instances(count)
    for temperature in TEMPERATURES:
        yield (
            f"the policy, temperature {temperature:g}",
            sampled_groups(instances, group_size=GROUP, temperature=temperature, seed=seed, generation=0),
        )
    for sigma in SIGMAS:
        key = NoiseKey(seed=seed, generation=0, population=GROUP, antithetic=False, sigma=sigma)
        plan = population_plan(
            NOISE.draw(network, key),
            instances,
            population=GROUP,
            seed=seed,
            generation=0,
            sampling=Sampling(temperature=1.0),
        )
        yield f"members, sigma {sigma:g}", replace(plan, logprobs=True, tokens=True)


def figures(batch: Trajectories, scoring: Scoring, plan: RolloutPlan) -> str:
    """Return cells: success, dead groups, and the ratio of the policy to what sampled, by episode."""
    assert batch.success_B is not None, "the task knows success"
    return_QG = batch.return_B[torch.tensor(plan.groups).argsort(stable=True)].view(-1, GROUP)
    dead_Q = (return_QG == return_QG[:, :1]).all(1)
    failed_Q = dead_Q & (return_QG[:, 0] < return_QG.max())
    actions = actions_of(batch, scoring.network.device)
    log_ratio_B = torch.zeros(actions.rows, dtype=torch.float64)
    everyone_B = torch.arange(actions.rows)
    for part in scoring.score(actions, everyone_B[:, None], temperature=1.0):
        row_P, logprob_PA = part.row_PK[:, 0], part.logprob_PKN[:, 0].cpu().double()
        old_PA = actions.old_logprob_BN.cpu()[row_P, : logprob_PA.shape[1]].double()
        mask_PA = actions.mask_BN.cpu()[row_P, : logprob_PA.shape[1]]
        log_ratio_B[row_P] = torch.where(mask_PA, logprob_PA - old_PA, 0.0).sum(1)
    ratio_B = log_ratio_B.exp()
    effective = float(ratio_B.sum() ** 2 / ratio_B.square().sum() / len(ratio_B))
    shares = f"{float(dead_Q.double().mean()):.2f} | {float(failed_Q.double().mean()):.2f}"
    return (
        f"{float(batch.success_B.double().mean()):.3f} | {shares} | {-float(log_ratio_B.mean()):.2f} | {effective:.2f}"
    )


def merged(collector: Collector, network: PerturbedNetwork, sigma: float, seed: int) -> list[float]:
    """Return held-out greedy success of the start, and of the mean of the k best members by training instances."""
    key = NoiseKey(seed=seed, generation=1, population=MEMBERS, antithetic=False, sigma=sigma)
    noise, greedy = NOISE.draw(network, key), Sampling(temperature=0.0)
    race = population_plan(
        noise, train_instances(seed, 0, CHOSEN_BY), population=MEMBERS, seed=seed, generation=1, sampling=greedy
    )
    best_P = collector.collect(race).return_B.view(MEMBERS, -1).mean(1).argsort(descending=True, stable=True)
    weights = dict(network.network.named_parameters())
    found = [held_out(collector, seed)]
    for k in BEST:
        weight_P = torch.zeros(MEMBERS, dtype=torch.float64).index_fill(0, best_P[:k], sigma / k)
        moved: dict[str, Tensor] = {
            name: network.in_stored_layout(name, whole) for name, whole in noise.combine(weight_P)
        }
        with torch.no_grad():
            before = {name: weights[name].clone() for name in moved}
            for name, whole in moved.items():
                weights[name].add_(whole)
            found.append(held_out(collector, seed))
            for name, kept in before.items():
                weights[name].copy_(kept)
    return found


def held_out(collector: Collector, seed: int) -> float:
    """Return greedy success on validation instances."""
    plan = RolloutPlan(
        seed=seed,
        generation=2,
        instances=validation_instances(HELD_TO),
        groups=tuple(range(HELD_TO)),
        sampling=Sampling(temperature=0.0),
    )
    success_B = collector.collect(plan).success_B
    assert success_B is not None, "the task knows success"
    return float(success_B.double().mean())


if __name__ == "__main__":
    run_hydra(main, sys.argv[1:], config_name="probe")

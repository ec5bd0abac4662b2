"""Measures what it costs to score tokens in shared contexts, and how near each kind of noise comes to the gradient.

    python scripts/shared_contexts.py env=recall

Prints two tables as Markdown (docs/results/scored-es.md). The first has the policy gradient with keys and values of earlier
positions held fixed (optimizers/shared_context.py) beside the whole one, on the episodes of `scripts/probe.py`. The second has
estimates by members that score one token each. Gains are those of the probe: to first order, the rise of the mean return by a
step that moves the policy by 0.1 nats an episode.

Shapes: B episodes, T tokens, A actions of a row, V vocabulary.
"""

import sys
from collections.abc import Mapping

import torch
from omegaconf import DictConfig
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from evotext.cli.command import run_hydra
from evotext.cli.errors import configuration
from evotext.cli.fitting import fitting_model
from evotext.cli.targets import build
from evotext.keys.instances import validation_instances
from evotext.noise import NoiseKey, Perturbation
from evotext.policy.actions import Actions, actions_of
from evotext.policy.output_head import chosen, log_probabilities
from evotext.rollouts.collector import Collector
from evotext.runner.preflight import choose_device, prepare_torch, rows_at_once
from optimizers.guide import Guide
from optimizers.perturbations import Guided, Local, LowRank
from optimizers.perturbed import PerturbedNetwork
from optimizers.probe.gradient import Estimators
from optimizers.sampled_groups import advantages, sampled_groups
from optimizers.scores import member_weights
from optimizers.scoring import Scoring
from optimizers.selection import policy_gradient
from optimizers.shared_context import SharedContext, Task

# Draws of one token each, and how often all of them are drawn anew.
MEMBERS, DRAWS = 2048, 3
Gradient = Mapping[str, Tensor]


def main(config: DictConfig) -> None:
    """Measure and print."""
    with configuration():
        prepare_torch(config.threads)
        device = choose_device(config.device)
        rows = rows_at_once(config.rows, device)
        probe, task = build(config, "probe"), build(config, "env")
        model = build(config, "adapter").attach(fitting_model(config, build(config, "model"), task, device))
    instances, network = validation_instances(probe.prompts), model.network
    plan = sampled_groups(
        instances, group_size=probe.group_size, temperature=probe.temperature, seed=probe.seed, generation=0
    )
    batch = Collector(model, task, rows=rows, even=config.rows is None).collect(plan)
    advantage_B, actions = advantages(batch, probe.baseline), actions_of(batch, model.device)
    whole, _ = policy_gradient(network, actions, advantage_B, temperature=probe.temperature)
    fixed = fixed_gradient(network, actions, advantage_B, probe.temperature)
    estimators = Estimators(
        Scoring(network, rows=rows),
        batch,
        actions,
        advantage_B,
        whole,
        temperature=probe.temperature,
        members=MEMBERS,
        tokens=MEMBERS,
        sigma=probe.sigma,
        draws=DRAWS,
        seed=probe.seed,
    )
    gain = estimators.gain(PerturbedNetwork(network), list(fixed.items()), dot(fixed, whole) / norm(fixed))
    print("| Task | cosine with the whole gradient | energy over the whole one's | gain | of the whole gradient |")
    print("|---|---|---|---|---|")
    energy = (norm(fixed) / norm(whole)) ** 2
    print(f"| `{task.name}` | {cosine(fixed, whole):.2f} | {energy:.2f} | {gain:.3f} | {estimators.exact():.3f} |\n")

    print("| Task | Noise | cosine with the whole gradient | with the fixed contexts' | gain | operations |")
    print("|---|---|---|---|---|---|")
    guided = Guided(
        rank=1,
        directions=probe.directions,
        tokens=probe.tokens,
        whitening=probe.whitening,
        refresh=1,
        vectors="frozen",
    )
    kinds: dict[str, Perturbation] = {
        "low rank": LowRank(rank=1, vectors="frozen"),
        "guided": guided,
        "local": Local(),
    }
    for name, perturbation in kinds.items():
        guide = Guide(network=PerturbedNetwork(network), perturbation=perturbation)
        guide.look(batch)
        figures, scoring = [], Scoring(network, rows=rows)
        for draw in range(DRAWS):
            key = NoiseKey(seed=probe.seed, generation=draw, population=MEMBERS, antithetic=False, sigma=probe.sigma)
            noise = guide.draw(key)
            asked = Task(
                actions=actions,
                advantage_BA=advantage_B[:, None] * actions.mask_BN.cpu(),
                key=key,
                noise=noise,
                per_draw=1,
                temperature=probe.temperature,
                clip=None,
            )
            weight_P, _ = member_weights(SharedContext(scoring).deltas(asked), key, None)
            estimate = {name: guide.network.in_stored_layout(name, total) for name, total in noise.combine(weight_P)}
            slope = dot(estimate, whole) / norm(estimate)
            rise = estimators.gain(guide.network, list(estimate.items()), slope)
            figures.append((cosine(estimate, whole), cosine(estimate, fixed), rise))
        near, nearer, rise = torch.tensor(figures, dtype=torch.float64).mean(0).tolist()
        flops = scoring.spent() / DRAWS
        print(f"| `{task.name}` | {name} | {near:.4f} | {nearer:.4f} | {rise:.3f} | {flops:.1e} |")


def fixed_gradient(network: PreTrainedModel, actions: Actions, advantage_B: Tensor, temperature: float) -> Gradient:
    """Return the gradient of (1 / B) sum_j A_j l_j with the keys and values of earlier positions held fixed."""
    weights = dict(network.named_parameters())
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for row in (advantage_B != 0).nonzero()[:, 0].tolist():
        ids_T = actions.tokens_BT[row, : int(actions.length_B[row])]
        place_A = actions.position_BN[row][actions.mask_BN[row]]
        context, own, count = DynamicCache(), DynamicCache(), len(place_A)
        with torch.no_grad():
            network(input_ids=ids_T[None], past_key_values=context, use_cache=True)
        for layer, (keys, values) in enumerate((layer.keys, layer.values) for layer in context.layers):
            own.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), layer)
        before_A1 = place_A[:, None] - 1
        earlier_AT = torch.arange(len(ids_T), device=ids_T.device) < before_A1
        mask_A11S = torch.cat([earlier_AT, torch.ones_like(before_A1, dtype=torch.bool)], 1)[:, None, None]
        with torch.enable_grad():
            logits_AV = network(
                input_ids=ids_T[before_A1],
                attention_mask=mask_A11S,
                position_ids=before_A1,
                past_key_values=own,
                use_cache=True,
            ).logits[:, 0]
            score = chosen(log_probabilities(logits_AV, temperature), ids_T[place_A]).sum()
        parts = torch.autograd.grad(score, list(weights.values()), allow_unused=True)
        for name, part in zip(weights, parts, strict=True):
            if part is not None:
                total[name] += float(advantage_B[row]) / len(advantage_B) * part
    return total


def dot(one: Gradient, other: Gradient) -> float:
    """Return the inner product over the parameters of the first."""
    return sum(float((part * other[name]).sum()) for name, part in one.items())


def norm(one: Gradient) -> float:
    """Return the Euclidean norm."""
    return dot(one, one) ** 0.5


def cosine(one: Gradient, other: Gradient) -> float:
    """Return the cosine of the angle between them; parameters that the first does not have are 0 in it."""
    return dot(one, other) / (norm(one) * norm(other))


if __name__ == "__main__":
    run_hydra(main, sys.argv[1:], config_name="probe")

"""Selects the matrices that are worth perturbing: those that hold the gradient's energy in few dimensions.

An estimate's cosine with the gradient is sqrt(n rho e / d): n pairs, rho the signal's share of a pair's fitness variance, d the
dimensions that are perturbed, e the share of the gradient's energy (its squared norm) in them. Matrices are therefore taken
in the order of energy per dimension, until they hold the wanted share of all.

The gradient is that of (1 / B) sum_j A_j l_j on sampled episodes, by backward passes over a few rows at a time, which add up
in one gradient of the weights' size. Each process runs all of them, so that all choose alike.

Shapes: B episodes, A actions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor
from transformers import PreTrainedModel

from evotext.models.flops import ForwardFlops
from evotext.noise import Perturbation
from evotext.policy.actions import Actions
from evotext.policy.output_head import chosen, log_probabilities
from evotext.types import Cost

from .perturbations.basis import Basis
from .perturbed import PerturbedNetwork
from .perturbed.patterns import summary

# Rows of a backward pass: few, to keep its activations small.
ROWS = 8


@dataclass(frozen=True, kw_only=True)
class Energy:
    """A parameter's part of the gradient, and its dimensions."""

    energy: float
    """Squared norm of the gradient within the dimensions."""
    dimensions: int
    """Dimensions of the space in which the parameter is perturbed."""

    @property
    def density(self) -> float:
        """Energy per dimension."""
        return self.energy / max(1, self.dimensions)


def policy_gradient(
    network: PreTrainedModel, actions: Actions, advantage_B: Tensor, *, temperature: float
) -> tuple[dict[str, Tensor], Cost]:
    """Return the gradient of (1 / B) sum_j A_j l_j by parameter, as stored, in float32 or wider, and its cost."""
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    gradient = {
        name: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for name, p in parameters.items()
    }
    flops, cost = ForwardFlops(network), Cost()
    row_M = (advantage_B.to(actions.mask_BN.device) != 0).nonzero()[:, 0]
    for row_K in row_M[actions.length_B[row_M].argsort(stable=True)].split(ROWS):
        some = actions.select(row_K)
        positions = some.tokens_BT.numel()
        cost += Cost(
            flops=flops(positions=positions, predicted=positions)
            + (backward := flops.backward(positions=positions, predicted=positions)),
            backward_flops=backward,
        )
        with torch.enable_grad():
            logits_KTV = network(input_ids=some.tokens_BT, use_cache=False).logits
            at = (torch.arange(some.rows, device=row_K.device)[:, None], (some.position_BN - 1).clamp(min=0))
            logprob_KA = chosen(
                log_probabilities(logits_KTV[at], temperature), some.tokens_BT.gather(1, some.position_BN)
            )
            weight_KA = advantage_B.to(row_K.device)[row_K, None] * some.mask_BN / len(advantage_B)
            parts = torch.autograd.grad((weight_KA * logprob_KA).sum(), list(parameters.values()), allow_unused=True)
        for name, part in zip(parameters, parts, strict=True):
            if part is not None:
                gradient[name] += part
    return gradient, cost


def energies_of(
    gradient: Mapping[str, Tensor], network: PerturbedNetwork, perturbation: Perturbation, basis: Basis | None
) -> dict[str, Energy]:
    """Return the energy of each parameter that the perturbation moves, within the basis if there is one."""
    energies = {}
    for name, spec in network.parameters.items():
        if not perturbation.moves(spec) or (basis is not None and spec.kind == "matrix" and name not in basis):
            continue
        part = network.in_our_layout(name, gradient[name])
        if basis is not None:
            part = basis.project(name, part)
        energies[name] = Energy(energy=float(part.square().sum()), dimensions=part.numel())
    return energies


def choose(energies: Mapping[str, Energy], share: float) -> tuple[str, ...]:
    """Return the parameters that hold this share of all energy in the fewest dimensions, sorted by name; at least one."""
    total = sum(entry.energy for entry in energies.values())
    chosen: list[str] = []
    held = 0.0
    for name in sorted(energies, key=lambda name: (-energies[name].density, name)):
        if chosen and held >= share * total:
            break
        chosen.append(name)
        held += energies[name].energy
    return tuple(sorted(chosen))


def excluding(names: Sequence[str], chosen: Sequence[str]) -> list[str]:
    """Return patterns that match those of `names` that were not chosen, and nothing else: one for all layers where it can."""
    left_out = {name for name in names if name not in set(chosen)}
    patterns: dict[str, None] = {}
    for name in filter(left_out.__contains__, names):
        alone = name.replace("[", "[[]")
        (of_all_layers,) = summary([alone])
        matched = (other for other in names if fnmatchcase(other, of_all_layers))
        patterns[of_all_layers if left_out.issuperset(matched) else alone] = None
    return list(patterns)

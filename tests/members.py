"""A population's members one by one, the slow and obvious way."""

import copy

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from evotext.models.perturbed import PerturbedNetwork
from evotext.noise import PopulationNoise


@torch.no_grad()
def own_network(
    perturbed: PerturbedNetwork, noise: PopulationNoise, member: int, *, population: int, sigma: float
) -> PreTrainedModel:
    """A copy of the network with this member's weights, W + sigma E."""
    network = copy.deepcopy(perturbed.network)
    weights = dict(network.named_parameters())
    for name, unit in noise.combine(F.one_hot(torch.tensor(member), population).double()):
        weights[name].add_(perturbed.in_stored_layout(name, unit), alpha=sigma)
    return network

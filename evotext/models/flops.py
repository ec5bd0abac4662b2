"""Floating-point operations of a network's passes, by the usual count: 2 for each weight and position.

A forward pass takes 2 operations for each weight of a matrix at each position, a backward pass 2 for its input and 2 more if
the weight itself is trained. The output head counts only at the positions that go through it, and of a mixture's experts only
those that a token is sent to. Left out: attention's own products (a share of about context / (6 x hidden size)), vectors,
embedding look-ups with their noise, and what is computed a second time to save memory.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

# Names in configurations for the number of experts that a token is sent to.
ACTIVE_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")


class ForwardFlops:
    """Counts one network's forward passes.

    trunk: weights of the matrices below the output head. head: those of the head, 0 without one.
    """

    def __init__(self, network: PreTrainedModel) -> None:
        output = network.get_output_embeddings()
        apart = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
        apart |= set() if output is None else {id(output.weight)}
        active = _active_experts(network.config.get_text_config())
        named = {name: p for name, p in network.named_parameters() if p.ndim >= 2 and id(p) not in apart}
        trunk = list(named.values())
        self._matrices = {name: _matrices(p, active) for name, p in named.items()}
        self._head_name = next((name for name, p in network.named_parameters() if output and p is output.weight), "")
        self.trunk = sum(_used(p, active) for p in trunk)
        self.head = 0 if output is None else int(output.weight.numel())
        self._trained_trunk = sum(_used(p, active) for p in trunk if p.requires_grad)
        self._trained_head = self.head if output is not None and output.weight.requires_grad else 0

    def __call__(self, *, positions: int, predicted: int) -> float:
        """Return the operations of a pass. positions: padding included. predicted: those that go through the output head."""
        return 2.0 * (self.trunk * positions + self.head * predicted)

    def noise(self, by_matrix: Mapping[str, float], *, positions: int, predicted: int) -> float:
        """Return what a population's noise adds to a forward pass. by_matrix: `PopulationNoise.flops_by_matrix`."""
        trunk = sum(flops * self._matrices[name] for name, flops in by_matrix.items() if name in self._matrices)
        return trunk * positions + by_matrix.get(self._head_name, 0.0) * predicted

    def backward(self, *, positions: int, predicted: int) -> float:
        """Return the operations of the backward pass that follows such a forward pass."""
        trained = 2.0 * (self._trained_trunk * positions + self._trained_head * predicted)
        return self(positions=positions, predicted=predicted) + trained


def _is_stack(weight: Tensor) -> bool:
    """Return whether these are matrices of experts, rather than one, or the kernels of a convolution by channels."""
    return weight.ndim == 3 and weight.shape[1] > 1


def _matrices(weight: Tensor, active_experts: int | None) -> int:
    """Count the matrices among these weights that one position is multiplied with."""
    return min(len(weight), active_experts or len(weight)) if _is_stack(weight) else 1


def _used(weight: Tensor, active_experts: int | None) -> int:
    """Count the weights that one position is multiplied with: a stack of experts' matrices is not used whole."""
    return weight.numel() // len(weight) * _matrices(weight, active_experts) if _is_stack(weight) else weight.numel()


def _active_experts(config: PreTrainedConfig) -> int | None:
    """Return how many experts a token is sent to, by whichever name the configuration has for it."""
    counts = (getattr(config, name, None) for name in ACTIVE_EXPERTS)
    return next((count for count in counts if isinstance(count, int)), None)

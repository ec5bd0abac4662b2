"""The slow, obvious ways to run a population and to decode, against which the fast ones are checked."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from evotext.noise import PopulationNoise
from optimizers.perturbed import PerturbedNetwork


@torch.no_grad()
def own_network(
    perturbed: PerturbedNetwork, noise: PopulationNoise, member: int, *, population: int, sigma: float
) -> PreTrainedModel:
    """Return a copy of the network with this member's weights, W + sigma E."""
    network = copy.deepcopy(perturbed.network)
    weights = dict(network.named_parameters())
    for name, unit in noise.combine(F.one_hot(torch.tensor(member), population).double()):
        weights[name].add_(perturbed.in_stored_layout(name, unit), alpha=sigma)
    return network


@torch.no_grad()
def slow_greedy(
    network: PreTrainedModel, ids: Sequence[int], max_new_tokens: int, end_ids: frozenset[int]
) -> tuple[list[int], list[float]]:
    """Return what greedy decoding of one row writes without cache, padding or batch, and each token's log-probability."""
    written: list[int] = []
    logprobs: list[float] = []
    while len(written) < max_new_tokens and not (written and written[-1] in end_ids):
        logits_V = network(input_ids=torch.tensor([[*ids, *written]]), use_cache=False).logits[0, -1]
        written.append(int(logits_V.argmax()))
        logprobs.append(float(logits_V.log_softmax(-1)[written[-1]]))
    return written, logprobs


class _Widened(TorchFunctionMode):
    """Turns every request for a narrower type of number into one for float64."""

    narrow = frozenset({torch.float32, torch.bfloat16, torch.float16})
    casts = frozenset({Tensor.float, Tensor.bfloat16, Tensor.half})

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in self.casts:
            return args[0].double()
        kwargs = {key: self._wide(value) for key, value in (kwargs or {}).items()}
        return function(*map(self._wide, args), **kwargs)

    def _wide(self, value: Any) -> Any:
        return torch.float64 if isinstance(value, torch.dtype) and value in self.narrow else value


@contextmanager
def float64_throughout() -> Iterator[None]:
    """Let torch compute in float64 where a network's code asks for float32 or less, within the block.

    Routers, softmaxes, decays of states and rotary angles often do so whatever the weights are. There W + sigma E, rounded
    once, differs from W and sigma E, rounded each, by 1e-7: a rounding which would hide faults of that size.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Widened():
            yield
    finally:
        torch.set_default_dtype(before)

"""Linear layers of a perturbed network: x W^T + b plus what each row's member adds.

Layers that read one input, one after another, as queries, keys and values do, ask for their noise in one call that names
them all: the thin products of low-rank noise then read the input once.

Shapes: B rows (= P members x K rows), O outputs, I inputs.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from evotext.noise import FromStart

from .active import Active

MANY = 16
"""Positions a member from which a CPU adds the noise to the product, and not the product to the noise.

A prompt's product would have to read what the noise wrote, which is no longer in the cache.
"""


class OneInput:
    """Layers that read the same input. The first that is called reads it for the noise of all; the others fetch theirs."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._input: Tensor | None = None
        self._ready: dict[str, FromStart] = {}

    def noise(self, name: str, x: Tensor, active: Active) -> FromStart:
        """Return the noise of matrix `name` for the input x, by what it is added to."""
        if name == self.names[0]:
            noise = active.noise.linear_together(self.names, active.by_member(x, name))
            self._input, self._ready = x, dict(zip(self.names, noise, strict=True))
        if self._input is x and name in self._ready:
            ready = self._ready.pop(name)
            if (
                not self._ready
            ):  # a layer's input would otherwise live until the next pass: of all layers, as much as a cache
                self._input = None
            return ready
        return partial(active.noise.linear, name, active.by_member(x, name))  # called in another order

    def clear(self) -> None:
        """Drop noise that no layer has fetched."""
        self._input, self._ready = None, {}


def linear_forward(
    module: nn.Linear | Conv1D, weight: str | None, bias: str | None, active: Active, one_input: OneInput | None
) -> Callable[[Tensor], Tensor]:
    """Return a `forward` for the module. weight, bias: names of its parameters, None for those that stay.

    The stored weights' product is accumulated onto the noise's, one pass less; of many positions a member the noise's onto
    the product.
    """
    plain = module.forward
    transposed = isinstance(module, nn.Linear)  # Conv1D keeps I x O

    def onto_bias(y: Tensor) -> Tensor:
        noise_PO = None if bias is None else active.noise.vector(bias)
        y_PKO = y.view(active.members, -1, y.shape[-1])
        return y_PKO if noise_PO is None else y_PKO.add_(noise_PO[:, None])

    def bias_alone(x: Tensor) -> Tensor:
        return onto_bias(plain(x)).view(*x.shape[:-1], -1)

    def forward(x: Tensor) -> Tensor:
        assert weight is not None
        x_PKI = active.by_member(x, weight)
        noise: FromStart
        if one_input is None:
            noise = partial(active.noise.linear, weight, x_PKI)
        else:
            noise = one_input.noise(weight, x, active)
        if x.device.type == "cpu" and x_PKI.shape[1] >= MANY:
            return noise(onto_bias(plain(x))).view(*x.shape[:-1], -1)
        noise_PO = None if bias is None else active.noise.vector(bias)
        y_NO = noise(module.bias if noise_PO is None else (module.bias + noise_PO)[:, None]).flatten(0, 1)
        # Not `addmm_`, which torch's counter of operations does not know.
        torch.addmm(y_NO, x_PKI.flatten(0, 1), module.weight.t() if transposed else module.weight, out=y_NO)
        return y_NO.view(*x.shape[:-1], -1)

    return bias_alone if weight is None else forward

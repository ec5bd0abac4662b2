"""Scales and shifts of norms in a perturbed network: while it runs, each is replaced by a tensor with one vector a row.

Shapes: B rows (= P members x K rows), T tokens, N a vector's size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evotext.noise import MemberNoise

from .active import Active


@dataclass(frozen=True, slots=True)
class NormVector:
    """A norm's scale or shift."""

    attributes: dict[str, Any]
    """The dictionary in which the module keeps it."""
    key: str
    """Its name within the module."""
    name: str
    """The parameter."""
    parameter: nn.Parameter
    input_dim: int
    """Dimensions of the norm's input."""

    def per_row(self, noise: MemberNoise, rows_per_member: int) -> Tensor:
        """Return the perturbed vector of every row, (B, 1, ..., N), to go with the norm's input; the plain one if it stays."""
        noise_PN = noise.vector(self.name)
        if noise_PN is None:
            return self.parameter
        vector_BN = (self.parameter.detach() + noise_PN).repeat_interleave(rows_per_member, dim=0)
        return vector_BN.view(vector_BN.shape[0], *[1] * (max(self.input_dim, 3) - 2), vector_BN.shape[1])


def is_torch_norm(module: nn.Module) -> bool:
    """Return whether the module computes as torch's own norms do, whose kernels take one scale for all rows."""
    kinds = (nn.LayerNorm, nn.RMSNorm)
    return isinstance(module, kinds) and type(module).forward in {kind.forward for kind in kinds}


def norm_forward(module: nn.LayerNorm | nn.RMSNorm, input_dim: int, active: Active) -> Callable[[Tensor], Tensor]:
    """Return a `forward` for one of torch's norms, to which `NormVector.per_row` was given."""

    def forward(x: Tensor) -> Tensor:
        if input_dim == 2:  # rows and tokens flattened together
            return scaled(active.by_member(x, "norm").view(active.rows, -1, x.shape[-1])).view_as(x)
        return scaled(x)

    def scaled(x: Tensor) -> Tensor:
        if isinstance(module, nn.RMSNorm):
            return F.rms_norm(x, module.normalized_shape, None, module.eps) * module.weight
        y = F.layer_norm(x, module.normalized_shape, None, None, module.eps)
        return y * module.weight if module.bias is None else torch.addcmul(module.bias, y, module.weight)

    return forward

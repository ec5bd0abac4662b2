"""Each parameter's own scale: the root mean square of its weights, so that sigma can be a share of it; and a sigma too small.

Matrices of a wider layer have smaller weights, and those of another model others; a share of them means the same everywhere.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from evotext.devices import widest_float
from evotext.distributed.parts import Parts
from evotext.noise import ParameterSpec

# A parameter that starts near zero, as a bias or an adapter's second matrix, has at least this share of the scale of all.
LEAST = 0.1


@torch.no_grad()
def own_scales(weights: Mapping[str, Tensor], parts: Parts | None = None) -> dict[str, float]:
    """Return the root mean square of each, but no less than a tenth of that of all together. All are positive.

    parts: of the parameters that this process holds; the scales are those of whole ones.
    """
    held = parts or Parts()
    own = {name: float(weight.to(widest_float(weight.device)).square().sum()) for name, weight in weights.items()}
    squares = held.total_of_each(own)
    counts = {name: math.prod(held.whole_shape(name, weight)) for name, weight in weights.items()}
    together = (sum(squares.values()) / sum(counts.values())) ** 0.5
    least = LEAST * together or 1.0  # nothing but zeros: any scale is as good
    return {name: max((square / counts[name]) ** 0.5, least) for name, square in squares.items()}


def check_spacing(name: str, spec: ParameterSpec, sigma: float) -> None:
    """Raise ValueError if noise on a norm or bias would be rounded off: the update would take noise that never acted."""
    spacing = torch.finfo(spec.dtype).eps
    if spec.kind == "vector" and sigma < spacing:
        raise ValueError(
            f"sigma: expected at least {spacing:g}, which is what {spec.dtype} numbers near 1 are apart, "
            f"since noise on vectors like {name} is rounded off, got {sigma:g}; "
            "set perturbation.vectors=frozen or model.dtype=float32"
        )

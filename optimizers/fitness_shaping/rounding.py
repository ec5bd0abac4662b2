"""Differences of returns without the rounding errors of their means.

An optimizer such as Adam would blow the rounding error of a mean, where all returns are equal, up to a full step.
"""

import torch
from torch import Tensor


def without_rounding(values: Tensor, return_PQ: Tensor) -> Tensor:
    """Round to 2**-32 of the largest return, far above float64's rounding errors and far below any real difference."""
    step = float(return_PQ.abs().max()) * 2.0**-32
    return (values / step).round() * step if step > 0 else torch.zeros_like(values)


def over(centred: Tensor, spread: Tensor) -> Tensor:
    """The quotient; 0 where nothing differs."""
    return centred / spread if spread > 0 else torch.zeros_like(centred)

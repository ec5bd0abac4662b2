"""Optimizers as configurations name them: a torch.optim class with its options, still without parameters."""

from collections.abc import Callable

import torch
from torch import nn

OptimizerFactory = Callable[..., torch.optim.Optimizer]


def check_optimizer(factory: OptimizerFactory) -> None:
    """Build the optimizer on a throw-away parameter and take a step. Raises ValueError for what it rejects.

    The step finds optimizers that cannot be driven by gradients alone (LBFGS) or by dense ones (SparseAdam), and settings
    that no weight survives.
    """
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.zeros(2, 2)
    try:
        factory([parameter]).step()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"algorithm.optimizer: {error}") from error
    if not bool(parameter.isfinite().all()):
        raise ValueError(
            "algorithm.optimizer: expected steps that leave the weights finite, got others; is lr infinite?"
        )

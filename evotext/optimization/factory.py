"""Optimizers from the configuration: a torch.optim class with its options, without parameters yet."""

import inspect
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

OptimizerFactory = Callable[..., torch.optim.Optimizer]


def check_optimizer(factory: OptimizerFactory) -> None:
    """Build the optimizer on a throw-away parameter and take a step. Raise ValueError if either fails.

    The step finds optimizers that cannot be driven by gradients alone (LBFGS) or by dense ones (SparseAdam), and settings
    that no weight survives. An option is to blame if the optimizer works with its default in place of it.
    """
    fault = _fault(factory)
    if not fault:
        return
    options = factory.keywords if isinstance(factory, partial) else {}
    for key, value in options.items():
        others = {name: other for name, other in options.items() if name != key}
        if isinstance(factory, partial) and not _fault(partial(factory.func, *factory.args, **others)):
            raise ValueError(f"optimizer.{key}: expected {_expected(factory.func, key, value, fault)}, got {value!r}")
    raise ValueError(f"optimizer: expected one that takes a step on a matrix, got: {fault}")


def check_entry_by_entry(factory: OptimizerFactory) -> None:
    """Raise ValueError for an optimizer whose step on some entries of a matrix depends on the others.

    Steps on parts of a matrix, each by itself, have to be those on the whole.
    """
    matrix = torch.linspace(-1.0, 1.0, 24).view(4, 6).sin()
    for dim in (0, 1):
        whole, *parts = (nn.Parameter(values.clone()) for values in (matrix, *matrix.chunk(2, dim)))
        for parameter in (whole, *parts):
            optimizer = factory([parameter])
            for _ in range(2):
                parameter.grad = parameter.detach().cos()
                optimizer.step()
        if not torch.allclose(whole, torch.cat([*parts], dim), rtol=1e-5, atol=1e-7):
            raise ValueError(
                "optimizer: expected one that steps on each entry by itself with model.parallel=tensor, as Adam and SGD do, "
                f"got {type(optimizer).__name__}"
            )


def _fault(factory: OptimizerFactory) -> str:
    """Say what is wrong with the optimizer; empty if nothing is."""
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.zeros(2, 2)
    try:
        factory([parameter]).step()
    except (TypeError, ValueError, RuntimeError) as error:
        return str(error)
    return "" if bool(parameter.isfinite().all()) else "a step does not leave the weights finite"


def _expected(optimizer: Callable[..., object], key: str, value: object, fault: str) -> str:
    parameter = inspect.signature(optimizer).parameters.get(key)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if parameter is not None and type(parameter.default) in (int, float) and not number:
        return "a number"
    if number and not abs(float(str(value))) <= torch.finfo(torch.float32).max:
        return "a number that float32 can hold"
    return f"another value ({fault})"

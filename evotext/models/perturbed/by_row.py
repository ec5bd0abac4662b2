"""Parameters that code of a network's own reads, such as those of state-space mixers: each row computes with its member's.

While the network runs perturbed, a `ByRow` takes the parameter's place. It has the parameter's shape and holds one value for
each row of the batch. A function that is called with it runs row by row, as torch.vmap does it: on the tensors that
the batch's rows lead, it takes each row with that row's value.

    F.linear, F.embedding           the weights' product is shared by all members, as in linear layers and embeddings
    scaling, adding, exp, ...       in one pass, each value standing in front of the dimensions that it is broadcast to
    whatever else                   by torch.vmap: convolutions, norms of their own kind, sinks of attention

The value of a matrix is made when it is used and lasts as long as the operation. Large ones are refused.

Shapes: B rows (= P members x K rows), n positions of a row, O outputs, I inputs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from evotext.models.out_of_memory import is_out_of_memory
from evotext.models.perturbed.active import Active, CannotPerturbError
from evotext.models.perturbed.embedding import add_noise

# Numbers of a parameter of which every row may hold its own, at the time when it is used.
LARGEST = 1 << 18

_METADATA = {
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "requires_grad", "is_cuda")),
    *(Tensor.dim, Tensor.size, Tensor.numel, Tensor.is_floating_point, Tensor.element_size, Tensor.__len__),
}
_CASTS = {Tensor.to, Tensor.type, Tensor.type_as, Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16}
_AS_IT_IS = {Tensor.contiguous, Tensor.detach, Tensor.data.__get__}  # type: ignore[attr-defined]
_ENTRY_BY_ENTRY = {
    *(getattr(torch, name) for name in ("add", "sub", "mul", "div", "neg", "exp", "sigmoid", "tanh", "abs", "square")),
    *(getattr(Tensor, name) for name in ("add", "sub", "mul", "div", "neg", "exp", "sigmoid", "tanh", "abs", "square")),
    *(getattr(Tensor, f"__{name}__") for name in ("add", "sub", "mul", "truediv", "neg")),
    *(getattr(Tensor, f"__r{name}__") for name in ("add", "sub", "mul", "truediv")),
    F.softplus,
    F.silu,
}


class ByRow(Tensor):
    """One value for each row, in the shape of one of them."""

    parameter_name: str
    """Of the parameter that this stands for, or that it was computed with."""
    active: Active
    values: Callable[[], Tensor]
    """Each row's value, (B, *shape)."""
    parameter: Tensor | None
    """The parameter, if this stands for it, in whatever dtype; None for what was computed with it."""

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if function in _METADATA:
                return function(*args, **kwargs)
            own = next(leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, ByRow))
            if function in _AS_IT_IS:
                return own
            if function in _CASTS and args[0] is own:
                return _cast(
                    own, function(torch.empty(0, dtype=own.dtype, device=own.device), *args[1:], **kwargs).dtype
                )
            weight = args[1] if len(args) > 1 else None
            if isinstance(weight, ByRow) and weight.parameter is not None:
                if function is F.linear:
                    return _linear(args[0], weight, weight.parameter, *args[2:], **kwargs)
                if function is F.embedding:
                    looked_up = F.embedding(args[0], weight.parameter, *args[2:], **kwargs).to(weight.dtype)
                    return add_noise(args[0], looked_up, weight.parameter_name, weight.active)
            if function in _ENTRY_BY_ENTRY and not kwargs and (aligned := _aligned(args, own)):
                led, result = any(_is_led(leaf, own.active) for leaf in args), function(*aligned)
                return result if led else _holding(result, own)
            return _row_by_row(function, args, kwargs, own)

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
        own = next(leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, ByRow))
        raise CannotPerturbError(own.parameter_name, f"used by {function}, which does not run row by row")


def by_row(parameter: nn.Parameter, name: str, active: Active) -> ByRow:
    """Return what takes the place of this parameter."""

    def values() -> Tensor:
        if parameter.numel() > LARGEST:
            raise CannotPerturbError(name, f"no linear layer and no embedding, with {parameter.numel()} numbers")
        return member_values(parameter, name, active).repeat_interleave(active.rows // active.members, dim=0)

    return _made(parameter, parameter.dtype, name, active, values, parameter.detach())


def member_values(parameter: nn.Parameter, name: str, active: Active) -> Tensor:
    """Return the parameter with each member's noise, (P, *shape)."""
    if parameter.ndim < 2:
        noise = active.noise.vector(name)
    else:
        inputs = parameter.numel() // parameter.shape[0]
        eye_PII = torch.eye(inputs, dtype=parameter.dtype, device=parameter.device).expand(active.members, -1, -1)
        noise = active.noise.linear(name, eye_PII).transpose(1, 2)
    plain = parameter.detach().expand(active.members, *parameter.shape)
    return plain if noise is None else plain + noise.reshape(plain.shape)


def _made(
    like: Tensor, dtype: torch.dtype, name: str, active: Active, values: Callable[[], Tensor], parameter: Tensor | None
) -> ByRow:
    made: ByRow = Tensor._make_wrapper_subclass(ByRow, like.shape, dtype=dtype, device=like.device)  # type: ignore[attr-defined]
    made.parameter_name, made.active, made.values, made.parameter = name, active, values, parameter
    return made


def _holding(value_B: Tensor, source: ByRow) -> ByRow:
    """What was computed with `source`, (B, *shape)."""
    return _made(value_B[0], value_B.dtype, source.parameter_name, source.active, lambda: value_B, None)


def _cast(own: ByRow, dtype: torch.dtype) -> ByRow:
    return _made(own, dtype, own.parameter_name, own.active, lambda: own.values().to(dtype), own.parameter)


def _is_led(leaf: object, active: Active) -> bool:
    return isinstance(leaf, Tensor) and not isinstance(leaf, ByRow) and active.leads(leaf)


def _linear(x: Tensor, weight: ByRow, parameter: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, the stored weights' product being shared. The noise has the dtype in which they are stored."""
    y = F.linear(x, parameter.to(weight.dtype), None if isinstance(bias, ByRow) else bias)
    noise_PKO = weight.active.noise.linear(
        weight.parameter_name, weight.active.by_member(x, weight.parameter_name).to(parameter.dtype)
    )
    y = y + noise_PKO.view_as(y).to(y.dtype)
    if isinstance(bias, ByRow):
        y.view(weight.active.rows, -1, y.shape[-1]).add_(bias.values()[:, None])
    return y


def _aligned(args: Sequence[Any], own: ByRow) -> list[Any]:
    """Arguments whose entries meet by broadcasting: values, and rows where there are any. Empty where it takes more."""
    tensors = [leaf for leaf in args if isinstance(leaf, Tensor) and leaf.dim() > 0]
    others = [leaf for leaf in tensors if not isinstance(leaf, ByRow)]
    if own.dim() == 0 or len({leaf.dim() for leaf in tensors if isinstance(leaf, ByRow)}) > 1:
        return []
    if not others:
        return [leaf.values() if isinstance(leaf, ByRow) else leaf for leaf in args]
    dims = others[0].dim()
    if len(others) > 1 or others[0].shape[0] != own.active.rows or dims <= own.dim():
        return []
    front = [1] * (dims - 1 - own.dim())
    return [
        leaf.values().reshape(own.active.rows, *front, *leaf.shape) if isinstance(leaf, ByRow) else leaf
        for leaf in args
    ]


def _row_by_row(function: Callable[..., Any], args: Sequence[Any], kwargs: Any, own: ByRow) -> Any:
    """The function of each row alone, by torch.vmap. Its result is led by rows if some argument is."""
    rows = own.active.rows
    expanded = function in (Tensor.expand, torch.broadcast_to) and own.shape[:1] == (1,) and tuple(args[1:2]) == (rows,)
    if expanded:  # a value in each row of the batch
        args = (args[0], 1, *args[2:])
    leaves, form = tree_flatten((args, kwargs))
    led = [_is_led(leaf, own.active) for leaf in leaves]
    at = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    if function.__name__.endswith("_") and not function.__name__.endswith("__"):
        raise CannotPerturbError(own.parameter_name, f"used by {function.__name__}, which writes in place")

    def of_one(*tensors: Tensor) -> Any:
        given = list(leaves)
        for i, tensor in zip(at, tensors, strict=True):
            given[i] = tensor
        args, kwargs = tree_unflatten(given, form)
        return function(*args, **kwargs)

    def entering(i: int) -> Tensor:
        leaf = leaves[i]
        if isinstance(leaf, ByRow):
            return leaf.values()
        return leaf.reshape(rows, -1, *leaf.shape[1:]) if led[i] else leaf

    tensors = [entering(i) for i in at]
    dims = tuple(0 if isinstance(leaves[i], ByRow) or led[i] else None for i in at)
    try:
        result = torch.vmap(of_one, in_dims=dims)(*tensors)
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise CannotPerturbError(
            own.parameter_name, f"used by {function.__name__}: {str(error).splitlines()[0]}"
        ) from error
    positions = (
        1 if expanded else next((tensor.shape[1] for i, tensor in zip(at, tensors, strict=True) if led[i]), None)
    )

    def leaving(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if positions is None:
            return _holding(value, own)
        if value.dim() < 2 or value.shape[1] != positions:
            raise CannotPerturbError(
                own.parameter_name, f"used by {function.__name__}, whose result is not led by the batch's rows"
            )
        return value.flatten(0, 1)

    return tree_map(leaving, result)

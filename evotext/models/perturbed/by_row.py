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

    spec_name: str
    """Name of the parameter that this stands for, or that it was computed with."""
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
                empty = torch.empty(0, dtype=own.dtype, device=own.device)
                return _cast(own, function(empty, *args[1:], **kwargs).dtype)
            weight = args[1] if len(args) > 1 else None
            if isinstance(weight, ByRow) and weight.parameter is not None:
                if function is F.linear:
                    return _linear(args[0], weight, weight.parameter, *args[2:], **kwargs)
                if function is F.embedding:
                    looked_up = F.embedding(args[0], weight.parameter, *args[2:], **kwargs).to(weight.dtype)
                    return add_noise(args[0], looked_up, weight.spec_name, weight.active)
            if function in _ENTRY_BY_ENTRY and not kwargs and (aligned := _aligned(args, own)):
                led, result = any(_is_led(leaf, own) for leaf in args), function(*aligned)
                return result if led else _computed(result, own)
            return _row_by_row(function, args, kwargs, own)

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"ByRow({self.spec_name}, {tuple(self.shape)})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        own = next(leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, ByRow))
        raise CannotPerturbError(own.spec_name, f"used by {function}, which does not run row by row")


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
    made: ByRow = Tensor._make_wrapper_subclass(ByRow, like.shape, dtype=dtype, device=like.device)
    made.spec_name, made.active, made.values, made.parameter = name, active, values, parameter
    return made


def _computed(value_B: Tensor, source: ByRow) -> ByRow:
    """What was computed with `source` alone, (B, *shape)."""
    return _made(value_B[0], value_B.dtype, source.spec_name, source.active, lambda: value_B, None)


def _cast(own: ByRow, dtype: torch.dtype) -> ByRow:
    return _made(own, dtype, own.spec_name, own.active, lambda: own.values().to(dtype), own.parameter)


def _linear(x: Tensor, weight: ByRow, parameter: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, the stored weights' product being shared. The noise has the dtype in which they are stored."""
    name, active = weight.spec_name, weight.active
    y = F.linear(x, parameter.to(weight.dtype), None if isinstance(bias, ByRow) else bias)
    noise_PKO = active.noise.linear(name, active.by_member(x, name).to(parameter.dtype))
    y = y + noise_PKO.view_as(y).to(y.dtype)
    if isinstance(bias, ByRow):
        y.view(active.rows, -1, y.shape[-1]).add_(bias.values()[:, None])
    return y


def _is_led(leaf: object, own: ByRow) -> bool:
    """Whether this is a tensor that the batch's rows lead. One that others lead, and not a single one, has no place here."""
    if not isinstance(leaf, Tensor) or isinstance(leaf, ByRow) or leaf.dim() < 2:
        return False
    if not own.active.leads(leaf) and leaf.shape[0] != 1:
        raise CannotPerturbError(own.spec_name, f"meets a tensor of shape {tuple(leaf.shape)}, not the batch's rows")
    return own.active.leads(leaf)


def _aligned(args: Sequence[Any], own: ByRow) -> list[Any]:
    """Arguments whose entries meet by broadcasting: values, and rows where there are any. Empty where it takes more."""
    others = [leaf for leaf in args if isinstance(leaf, Tensor) and not isinstance(leaf, ByRow) and leaf.dim() > 0]
    if own.dim() == 0 or {leaf.dim() for leaf in args if isinstance(leaf, ByRow)} != {own.dim()}:
        return []
    if not others:
        return [leaf.values() if isinstance(leaf, ByRow) else leaf for leaf in args]
    rows, dims = own.active.rows, others[0].dim()
    if len(others) > 1 or others[0].shape[0] != rows or dims <= own.dim():
        return []
    front = [1] * (dims - 1 - own.dim())
    return [leaf.values().reshape(rows, *front, *leaf.shape) if isinstance(leaf, ByRow) else leaf for leaf in args]


def _row_by_row(function: Callable[..., Any], args: Sequence[Any], kwargs: Any, own: ByRow) -> Any:
    """The function of each row alone, by torch.vmap. Its result is led by rows if some argument is."""
    what, rows = function.__name__, own.active.rows
    if what.endswith("_") and not what.endswith("__"):
        raise CannotPerturbError(own.spec_name, f"used by {what}, which writes in place")
    expanded = function in (Tensor.expand, torch.broadcast_to) and own.shape[:1] == (1,) and tuple(args[1:2]) == (rows,)
    if expanded:  # to a value for each row of the batch, which is what its values are
        args = (args[0], 1, *args[2:])
    leaves, form = tree_flatten((args, kwargs))
    led = [_is_led(leaf, own) for leaf in leaves]
    tensors = {
        i: leaf.values() if isinstance(leaf, ByRow) else leaf.reshape(rows, -1, *leaf.shape[1:]) if led[i] else leaf
        for i, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor)
    }

    def of_one(*of_row: Tensor) -> Any:
        given = dict(enumerate(leaves)) | dict(zip(tensors, of_row, strict=True))
        args, kwargs = tree_unflatten(list(given.values()), form)
        return function(*args, **kwargs)

    try:
        dims = tuple(0 if led[i] or isinstance(leaves[i], ByRow) else None for i in tensors)
        result = torch.vmap(of_one, in_dims=dims)(*tensors.values())
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise CannotPerturbError(own.spec_name, f"used by {what}: {str(error).splitlines()[0]}") from error
    positions = {tensors[i].shape[1] for i in tensors if led[i]} | ({1} if expanded else set())

    def leaving(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if not positions:
            return _computed(value, own)
        if value.dim() < 2 or {value.shape[1]} != positions:
            raise CannotPerturbError(own.spec_name, f"used by {what}, whose result is not led by the batch's rows")
        return value.flatten(0, 1)

    return tree_map(leaving, result)

"""Parameters that a network's own code reads, such as those of state-space mixers: each row computes with its member's.

While the network runs perturbed, a `ByMember` takes the parameter's place. It has the parameter's shape and holds one value
for each member of the batch. A function that is called with it runs member by member, as torch.vmap does it: of the tensors
that the batch's rows lead, each member's rows with that member's value.

    F.linear, F.embedding, W x^T    the weights' product is shared by all members, as in linear layers and embeddings
    scaling, adding, exp, ...       in one pass, each value standing in front of the dimensions that it is broadcast to
    whatever else                   by torch.vmap: convolutions, norms of their own kind, sinks of attention

The value of a matrix is made when it is used and lasts as long as the operation. Large ones are refused.

Shapes: B rows (= P members x K rows), O outputs, I inputs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from evotext.models.out_of_memory import is_out_of_memory

from .active import Active, CannotPerturbError
from .embedding import add_noise

# The largest parameter, in numbers, of which every member may hold a copy while it is used.
LARGEST = 1 << 18

_METADATA = {
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "requires_grad", "is_cuda")),
    *(Tensor.dim, Tensor.size, Tensor.numel, Tensor.is_floating_point, Tensor.element_size, Tensor.__len__),
}
_CASTS = {Tensor.to, Tensor.type, Tensor.type_as, Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16}
_PRODUCTS = {torch.matmul, Tensor.matmul, Tensor.__matmul__}
_AS_IT_IS = {Tensor.contiguous, Tensor.detach, Tensor.data.__get__}  # type: ignore[attr-defined]
_ENTRY_BY_ENTRY = {
    *(getattr(torch, name) for name in ("add", "sub", "mul", "div", "neg", "exp", "sigmoid", "tanh", "abs", "square")),
    *(getattr(Tensor, name) for name in ("add", "sub", "mul", "div", "neg", "exp", "sigmoid", "tanh", "abs", "square")),
    *(getattr(Tensor, f"__{name}__") for name in ("add", "sub", "mul", "truediv", "neg")),
    *(getattr(Tensor, f"__r{name}__") for name in ("add", "sub", "mul", "truediv")),
    F.softplus,
    F.silu,
}


class ByMember(Tensor):
    """One value for each member, in the shape of one of them."""

    spec_name: str
    """Name of the parameter that this stands for, or that it was computed with."""
    active: Active
    values: Callable[[], Tensor]
    """Each member's value, (P, *shape)."""
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
            own = next(leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, ByMember))
            if function in _AS_IT_IS:
                return own
            if function in _CASTS and args[0] is own:
                empty = torch.empty(0, dtype=own.dtype, device=own.device)
                return _cast(own, function(empty, *args[1:], **kwargs).dtype)
            shared = _with_shared_weights(function, args, kwargs)
            if shared is not None:
                return shared
            if function in _ENTRY_BY_ENTRY and not kwargs and (aligned := _aligned(args, own)):
                led, result = any(_is_led(leaf, own) for leaf in args), function(*aligned)
                return result.flatten(0, 1) if led else _computed(result, own)
            return _member_by_member(function, args, kwargs, own)

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"ByMember({self.spec_name}, {tuple(self.shape)})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        own = next(leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, ByMember))
        raise CannotPerturbError(own.spec_name, f"used by {function}, which does not run member by member")


def by_member(parameter: nn.Parameter, name: str, active: Active) -> ByMember:
    """Return the object that takes the place of this parameter."""

    def values() -> Tensor:
        if parameter.numel() > LARGEST:
            raise CannotPerturbError(name, f"no linear layer and no embedding, with {parameter.numel()} numbers")
        return member_values(parameter, name, active)

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
) -> ByMember:
    made: ByMember = Tensor._make_wrapper_subclass(ByMember, like.shape, dtype=dtype, device=like.device)
    made.spec_name, made.active, made.values, made.parameter = name, active, values, parameter
    return made


def _computed(value_P: Tensor, source: ByMember) -> ByMember:
    """Wrap a result that was computed with `source` alone, (P, *shape)."""
    return _made(value_P[0], value_P.dtype, source.spec_name, source.active, lambda: value_P, None)


def _cast(own: ByMember, dtype: torch.dtype) -> ByMember:
    return _made(own, dtype, own.spec_name, own.active, lambda: own.values().to(dtype), own.parameter)


def _with_shared_weights(function: Callable[..., Any], args: Sequence[Any], kwargs: Any) -> Tensor | None:
    """Return the result of a linear layer, an embedding or W x^T, W being a parameter itself; None for all else."""
    if len(args) < 2:
        return None
    first, second = args[:2]
    if function is F.linear and isinstance(second, ByMember) and second.parameter is not None:
        return _linear(first, second, second.parameter, *args[2:], **kwargs)
    if function is F.embedding and isinstance(second, ByMember) and second.parameter is not None:
        looked_up = F.embedding(first, second.parameter, *args[2:], **kwargs).to(second.dtype)
        return add_noise(first, looked_up, second.spec_name, second.active)
    if function in _PRODUCTS and isinstance(first, ByMember) and first.parameter is not None and second.dim() > 2:
        return _linear(second.transpose(-1, -2), first, first.parameter).transpose(-1, -2)
    return None


def _linear(x: Tensor, weight: ByMember, parameter: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b, the stored weights' product being shared. The noise has the dtype in which they are stored."""
    name, active = weight.spec_name, weight.active
    y = F.linear(x, parameter.to(weight.dtype), None if isinstance(bias, ByMember) else bias)
    noise_PKO = active.noise.linear(name, active.by_member(x, name).to(parameter.dtype))
    y = y + noise_PKO.view_as(y).to(y.dtype)
    if isinstance(bias, ByMember):
        y.view(active.members, -1, y.shape[-1]).add_(bias.values()[:, None])
    return y


def _is_led(leaf: object, own: ByMember) -> bool:
    """Return whether the batch's rows lead this tensor. Raise CannotPerturbError where something other than 1 leads it."""
    if not isinstance(leaf, Tensor) or isinstance(leaf, ByMember) or leaf.dim() < 2:
        return False
    if not own.active.leads(leaf) and leaf.shape[0] != 1:
        raise CannotPerturbError(own.spec_name, f"meets a tensor of shape {tuple(leaf.shape)}, not the batch's rows")
    return own.active.leads(leaf)


def _by_members(rows: Tensor, own: ByMember) -> Tensor:
    """Split rows (B, ...), or (B * T, ...), by member: (P, K, ...), or (P, K * T, ...)."""
    return rows.reshape(own.active.members, -1, *rows.shape[1:])


def _aligned(args: Sequence[Any], own: ByMember) -> list[Any]:
    """Return arguments whose entries meet by broadcasting: values, and rows where there are any. Empty where it takes more."""
    others = [leaf for leaf in args if isinstance(leaf, Tensor) and not isinstance(leaf, ByMember) and leaf.dim() > 0]
    if own.dim() == 0 or {leaf.dim() for leaf in args if isinstance(leaf, ByMember)} != {own.dim()}:
        return []
    if not others:
        return [leaf.values() if isinstance(leaf, ByMember) else leaf for leaf in args]
    if len(others) > 1 or others[0].dim() <= own.dim() or not _is_led(others[0], own):
        return []
    front = [1] * (others[0].dim() - own.dim())

    def fitting(leaf: Any) -> Any:
        if isinstance(leaf, ByMember):
            return leaf.values().reshape(own.active.members, *front, *leaf.shape)
        return _by_members(leaf, own) if isinstance(leaf, Tensor) and leaf.dim() > 0 else leaf

    return [fitting(leaf) for leaf in args]


def _member_by_member(function: Callable[..., Any], args: Sequence[Any], kwargs: Any, own: ByMember) -> Any:
    """Run the function on each member's rows, by torch.vmap. Rows lead its result if they lead some argument."""
    what, rows, rows_each = function.__name__, own.active.rows, own.active.rows // own.active.members
    if what.endswith("_") and not what.endswith("__"):
        raise CannotPerturbError(own.spec_name, f"used by {what}, which writes in place")
    expanded = function in (Tensor.expand, torch.broadcast_to) and own.shape[:1] == (1,) and tuple(args[1:2]) == (rows,)
    if expanded:  # to a value for each row of the batch
        args = (args[0], rows_each, *args[2:])
    leaves, form = tree_flatten((args, kwargs))
    led = [_is_led(leaf, own) for leaf in leaves]
    tensors = {
        i: leaf.values() if isinstance(leaf, ByMember) else _by_members(leaf, own) if led[i] else leaf
        for i, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor)
    }

    def of_one(*of_member: Tensor) -> Any:
        given = dict(enumerate(leaves)) | dict(zip(tensors, of_member, strict=True))
        args, kwargs = tree_unflatten(list(given.values()), form)
        return function(*args, **kwargs)

    try:
        dims = tuple(0 if led[i] or isinstance(leaves[i], ByMember) else None for i in tensors)
        result = torch.vmap(of_one, in_dims=dims)(*tensors.values())
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise CannotPerturbError(own.spec_name, f"used by {what}: {str(error).splitlines()[0]}") from error
    positions = {tensors[i].shape[1] for i in tensors if led[i]} | ({rows_each} if expanded else set())

    def leaving(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if not positions:
            return _computed(value, own)
        if value.dim() < 2 or {value.shape[1]} != positions:
            raise CannotPerturbError(own.spec_name, f"used by {what}, whose result is not led by the batch's rows")
        return value.flatten(0, 1)

    return tree_map(leaving, result)

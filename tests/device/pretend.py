"""A device that computes on the CPU but keeps its tensors apart, as a GPU does: what mixes the two sides is an error.

It has no float64, as Apple's GPUs have none.

It finds tensors that are made on the wrong side without a GPU, and tells when the host waits for the device or sends it
something, which must not happen in a step that is recorded as a CUDA graph.

torch knows the device for the rest of the process once this module is imported, so tests that use it have their own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from evotext.devices import WITHOUT_FLOAT64

_setup_privateuseone_for_python_backend("pretend")
# Wrappers cannot hold tensors of inference mode. Import this module before what decorates with it.
torch.inference_mode = torch.no_grad  # type: ignore[misc,assignment]

FAR = torch.device("pretend:0")
WITHOUT_FLOAT64.add(FAR.type)
_aten = torch.ops.aten
CROSSING = {_aten._to_copy.default, _aten.copy_.default}
INDEXING = {
    _aten.index.Tensor,
    _aten.index_put_.default,
    _aten.index_put.default,
}  # the host's numbers may index the device's
WAITING = {_aten._local_scalar_dense.default, _aten.nonzero.default}  # whose result, or its shape, the host has to know


class Far(Tensor):
    """A tensor of the pretended device; `near` holds its numbers."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> "Far":
        """Wrap a tensor."""
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls,
            near.shape,
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=FAR,
            requires_grad=near.requires_grad,
        )

    def __init__(self, near: Tensor) -> None:
        self.near = near

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Far({self.near})"

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(operator, args, kwargs or {})


class _Device(TorchDispatchMode):
    """Sees what is made on the device out of nothing, and notes the operators that pass between it and the host."""

    def __init__(self) -> None:
        super().__init__()
        self.crossings: list[str] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = _computed(operator, args, kwargs or {})
        sides = {_is_far(x) for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)}
        if len(sides) > 1 or (operator in WAITING and True in sides):
            self.crossings.append(str(operator))
        return result


class _Makers(TorchFunctionMode):
    """Stands in for what torch does only for devices it was compiled for."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return function(*args, **kwargs).to(device)
        if args and _is_far(args[0]):
            if function is Tensor.tolist:
                return args[0].to("cpu").tolist()
            if function is Tensor.data_ptr:
                return args[0].near.data_ptr()
            if function is Tensor.__contains__:
                return bool((args[0] == args[1]).any())
        return function(*args, **kwargs)


@contextmanager
def pretended() -> Iterator[list[str]]:
    """Within it `FAR` can be used; yields the operators that crossed between host and device so far."""
    with _Device() as device, _Makers():
        yield device.crossings


def move(network: nn.Module) -> None:
    """Put a module's parameters and buffers on `FAR`."""
    done: dict[int, Any] = {}
    for module in network.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                far = nn.Parameter(Far(parameter.detach()), parameter.requires_grad)
                module._parameters[key] = done.setdefault(id(parameter), far)
        for key, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[key] = done.setdefault(id(buffer), Far(buffer))


def _is_far(x: object) -> bool:
    return isinstance(x, Far)


def _computed(operator: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU. The result is far if it was asked for there or made of something far."""
    leaves = tree_leaves((args, kwargs))
    _refuse_mixing(operator, tree_leaves((args[:1], kwargs)) if operator in INDEXING else leaves)
    asked = [x for x in leaves if isinstance(x, torch.device)]
    far = asked[0].type == FAR.type if asked else any(map(_is_far, leaves))

    def near(x: object) -> object:
        if isinstance(x, Far):
            return x.near
        return torch.device("cpu") if isinstance(x, torch.device) else x

    result = operator(*tree_map(near, args), **tree_map(near, kwargs))
    if far and any(isinstance(x, Tensor) and x.dtype == torch.float64 for x in tree_leaves(result)):
        raise TypeError(f"{operator}: expected no float64 on this device")
    same = {id(x.near): x for x in leaves if isinstance(x, Far)}  # what works in place returns its argument
    return tree_map(lambda x: same.get(id(x), Far(x)) if far and isinstance(x, Tensor) else x, result)


def _refuse_mixing(operator: Callable[..., Any], leaves: list[Any]) -> None:
    sides = {
        _is_far(x) for x in leaves if isinstance(x, Tensor) and x.dim() > 0
    }  # single numbers may come from the host
    if len(sides) > 1 and operator not in CROSSING:
        raise RuntimeError(f"{operator}: expected all tensors to be on the same device")

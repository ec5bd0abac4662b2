"""A tree of tensors, numbers, strings and containers as JSON and named tensors, instead of pickle: in messages and files.

JSON knows neither tensors nor tuples nor keys that are numbers (an optimizer's state has all three), so every container
and every tensor is an object of one key that says what it is; numbers, strings, booleans and null stand for themselves:

    {"dict": [[key, value], ...]}   {"list": [...]}   {"tuple": [...]}   {"tensor": "name in the safetensors file"}
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

Json = Any


def pack(tree: object, prefix: str) -> tuple[Json, dict[str, Tensor]]:
    """Return the tree's shape as JSON, and its tensors by name (the path to each, after the prefix).

    Raise ValueError for anything else in it.
    """
    tensors: dict[str, Tensor] = {}

    def packed(node: object, path: str) -> Json:
        match node:
            case Tensor():
                name = path if path not in tensors else f"{path}#{len(tensors)}"  # keys 1 and "1" make one path
                tensors[name] = node.detach()
                return {"tensor": name}
            case None | bool() | int() | float() | str():
                return node
            case Mapping():
                return {"dict": [[packed(key, path), packed(value, f"{path}/{key}")] for key, value in node.items()]}
            case list() | tuple():
                kind = "list" if isinstance(node, list) else "tuple"
                return {kind: [packed(value, f"{path}/{i}") for i, value in enumerate(node)]}
        raise ValueError(
            f"{path}: expected tensors, numbers, strings, None and dicts, lists and tuples of them, "
            f"got {type(node).__name__}; return those from state_dict"
        )

    return packed(tree, prefix), tensors


def unpack(shape: Json, tensors: Mapping[str, Tensor]) -> Any:
    """Return the tree that `pack` was given. Raise ValueError or KeyError if it cannot have been one."""
    if not isinstance(shape, dict):
        if isinstance(shape, list):
            raise ValueError("expected a packed tree, got a bare list")
        return shape
    [(kind, content)] = shape.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {unpack(key, tensors): unpack(value, tensors) for key, value in content}
    if kind in ("list", "tuple"):
        values = [unpack(value, tensors) for value in content]
        return values if kind == "list" else tuple(values)
    raise ValueError(f"expected dict, list, tuple or tensor, got {kind!r}")

"""Finds out how a network uses its parameters, by running a tiny batch through it.

Shapes: B rows, T tokens, N a vector's size, V vocabulary.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from evotext.models.cached_layers import cache_key

from .experts import are_experts
from .vectors import is_torch_norm

MEMBERS, ROWS_PER_MEMBER, TOKENS = 2, 2, 3
ROWS = MEMBERS * ROWS_PER_MEMBER

Kind = Literal["linear", "embedding", "norm", "experts", "own"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """One place where a parameter is used; a tied one has several."""

    name: str
    """The parameter."""
    module: nn.Module
    """The module that owns it."""
    key: str
    """Its name within the module."""
    kind: Kind
    """The way to perturb it; `own`: by the module's own code, member by member."""
    input_dim: int = 0
    """Dimensions of the module's input."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Uses:
    """The uses of a network's parameters."""

    uses: list[Use]
    """Every use."""
    faults: dict[str, str]
    """Why parameters cannot be perturbed, by name."""
    one_input: list[tuple[str, ...]]
    """Matrices of linear layers that read the same input, one after another."""
    logits_BTV: Tensor
    """The result of `probe_logits`."""


@torch.no_grad()
def probe_logits(network: PreTrainedModel) -> Tensor:
    """Return logits (B, T, V) of a tiny batch with different rows, and of one more token by the cache where there is one."""
    vocabulary = network.config.get_text_config().vocab_size
    ids_BT = (torch.arange(ROWS * (TOKENS + 1), device=network.device) * 7 % vocabulary).view(ROWS, TOKENS + 1)
    mask_BT = torch.ones_like(ids_BT)
    prompt = network(input_ids=ids_BT[:, :TOKENS], attention_mask=mask_BT[:, :TOKENS], use_cache=True)
    key = cache_key(network)
    cache = prompt.get(key)
    if cache is None:
        return prompt.logits
    seen_BT = mask_BT if key == "past_key_values" else None  # layers that keep states alone have no mask for a step
    step = network(input_ids=ids_BT[:, TOKENS:], attention_mask=seen_BT, **{key: cache}, use_cache=True)
    return torch.cat((prompt.logits, step.logits), dim=1)


def inspect_uses(network: PreTrainedModel, name_of: Mapping[int, str]) -> Uses:
    """Return every use of the parameters `name_of` (by id)."""
    faults: dict[str, str] = {}
    by_module: dict[nn.Module, list[Use]] = {}
    for module in network.modules():
        own = {key: p for key, p in module._parameters.items() if p is not None}
        for key, parameter in own.items():
            name = name_of.get(id(parameter))
            if name is None:
                continue
            if parameter.is_floating_point():
                use = Use(name=name, module=module, key=key, kind=_kind(module, key, own))
                by_module.setdefault(module, []).append(use)
            else:
                faults[name] = f"a parameter of type {parameter.dtype}"
    watch = _Watch(by_module, faults)
    hooks = [module.register_forward_hook(watch) for module, uses in by_module.items() if uses[0].kind != "own"]
    try:
        logits_BTV = probe_logits(network)
    finally:
        for hook in hooks:
            hook.remove()
    uses = [
        replace(use, kind="own") if use.kind in ("linear", "norm") and use.input_dim == 0 else use
        for uses in by_module.values()
        for use in uses
    ]
    one_input = readers_of_one_input(watch.inputs)
    return Uses(uses=uses, faults=faults, one_input=one_input, logits_BTV=logits_BTV)


def readers_of_one_input(inputs: Sequence[tuple[str, Tensor]]) -> list[tuple[str, ...]]:
    """Return names that follow each other and read the same tensor; none that does so only at times or is used twice."""
    runs: list[list[str]] = []
    last: Tensor | None = None
    for name, x in inputs:
        if x is last:
            runs[-1].append(name)
        else:
            runs.append([name])
        last = x
    calls = Counter(name for name, _ in inputs)
    found = Counter(map(tuple, runs))
    return [names for names, times in found.items() if len(names) > 1 and all(calls[name] == times for name in names)]


def alike(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are equal but for rounding, relative to the largest entry."""
    tolerance = torch.finfo(a.dtype).eps ** 0.5
    largest = float(b.nan_to_num().abs().max())
    return a.shape == b.shape and torch.allclose(a, b, rtol=0.0, atol=tolerance * largest, equal_nan=True)


def _kind(module: nn.Module, key: str, own: Mapping[str, nn.Parameter]) -> Kind:
    """Return how a parameter can be perturbed, judged by the module that owns it."""
    if isinstance(module, nn.Linear | Conv1D) and key in ("weight", "bias"):
        return "linear"
    if type(module).forward is nn.Embedding.forward and isinstance(module, nn.Embedding) and module.max_norm is None:
        return "embedding"
    if are_experts(module):
        return "experts"
    # Modules that have others within may use their vectors in more ways than scaling their input.
    if all(parameter.ndim == 1 for parameter in own.values()) and not any(module.children()):
        return "norm"
    return "own"


class _Watch:
    """A forward hook that notes each module's input and checks that the module does what its kind does."""

    def __init__(self, by_module: dict[nn.Module, list[Use]], faults: dict[str, str]) -> None:
        self._by_module, self._faults = by_module, faults
        self.inputs: list[tuple[str, Tensor]] = []
        """The input of each linear layer, in the order of the calls."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        uses = self._by_module[module]
        plain, fault = _verdict(module, uses[0].kind, args, output)
        if fault is not None:
            self._faults |= dict.fromkeys((use.name for use in uses), fault)
        dim = args[0].dim() if args and isinstance(args[0], Tensor) else 1
        kind = uses[0].kind if plain else "own"
        self._by_module[module] = [replace(use, kind=kind, input_dim=dim) for use in uses]
        self.inputs += [(use.name, args[0]) for use in uses if use.kind == "linear" and use.key == "weight"]


def _verdict(module: nn.Module, kind: Kind, args: tuple[Any, ...], output: Any) -> tuple[bool, str | None]:
    """Return whether the module does what its kind does, and why it cannot be perturbed at all."""
    if kind == "own":
        return False, None
    if not args or not isinstance(args[0], Tensor) or not isinstance(output, Tensor):
        return False, None
    x = args[0]
    led_by_rows = x.shape[0] == ROWS and (x.dim() >= 3 or kind == "embedding")
    can_flatten = kind in ("linear", "experts") or is_torch_norm(module)
    flattened = can_flatten and x.dim() == 2 and x.shape[0] in (ROWS * TOKENS, ROWS)
    shared_positions = kind == "embedding" and x.shape[0] == 1
    if not (led_by_rows or flattened or shared_positions):
        # The code of a norm may still be followed member by member; a linear layer's would be taken for another member's.
        fault = f"{type(module).__name__} gets inputs that are not the batch's rows, of shape {tuple(x.shape)}"
        return False, None if kind == "norm" else fault
    if kind == "linear" and isinstance(module, nn.Linear) and type(module).forward is not nn.Linear.forward:
        return alike(output, F.linear(x, module.weight, module.bias)), None
    if kind == "norm" and not is_torch_norm(module):
        return _scales(module, args), None
    return True, None


def _scales(module: nn.Module, args: tuple[Any, ...]) -> bool:
    """Return whether the module run with one vector a row, of shape (B, 1, ..., N), gives each row what its vector gives."""
    x = args[0]
    own = {key: p for key, p in module._parameters.items() if p is not None}
    per_row = {
        key: p.detach() + torch.linspace(-1, 1, ROWS * p.numel(), dtype=p.dtype, device=p.device).view(ROWS, p.numel())
        for key, p in own.items()
    }
    try:
        for key, vector_BN in per_row.items():
            module._parameters[key] = vector_BN.view(ROWS, *[1] * (x.dim() - 2), -1)  # type: ignore[assignment]
        together = module.forward(*args)
        for row in range(ROWS):
            for key, vector_BN in per_row.items():
                module._parameters[key] = vector_BN[row]  # type: ignore[assignment]
            mine = [a[row : row + 1] if isinstance(a, Tensor) and a.shape[:1] == (ROWS,) else a for a in args]
            if not alike(together[row : row + 1], module.forward(*mine)):
                return False
    except (RuntimeError, ValueError, TypeError):  # whatever its code does, it does not take a scale a row
        return False
    finally:
        module._parameters.update(own)
    return True

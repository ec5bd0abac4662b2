"""How a network uses its parameters, found out by running a tiny batch through it.

Shapes: B rows, T tokens, N a vector's size, V vocabulary.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from evotext.models.cached_layers import cache_key

MEMBERS, ROWS_PER_MEMBER, TOKENS = 2, 2, 3
ROWS = MEMBERS * ROWS_PER_MEMBER


@dataclass(kw_only=True, slots=True)
class Use:
    """One place where a parameter is used; a tied one has several."""

    name: str
    """The parameter."""
    module: nn.Module
    """The module that owns it."""
    key: str
    """What the module calls it."""
    kind: Literal["linear", "embedding", "norm", "other"]
    """How it can be perturbed."""
    input_dim: int = 0
    """Dimensions of the module's input, once it was seen; 0 if it was never called."""


class NoNoise:
    """The noise of `MEMBERS` members that all are the unperturbed network; notes which parameters were asked for.

    outputs: O of every matrix. device: the network's.
    """

    count = MEMBERS

    def __init__(self, outputs: Mapping[str, int], device: torch.device) -> None:
        self._device = device
        self.applied: set[str] = set()
        self.inputs: list[tuple[str, Tensor]] = []
        """What each linear layer read, in the order of the calls."""
        self._outputs = outputs

    def linear(self, name: str, x_PKI: Tensor, start: Tensor | None = None) -> Tensor:
        """The start alone, or nothing."""
        self.applied.add(name)
        self.inputs.append((name, x_PKI))
        y_PKO = x_PKI.new_zeros(*x_PKI.shape[:2], self._outputs[name])
        return y_PKO if start is None else y_PKO + start

    def add_to_embedding(self, name: str, ids_PK: Tensor, y_PKD: Tensor) -> None:
        """Add nothing."""
        self.applied.add(name)

    def vector(self, name: str) -> Tensor:
        """Integer zeros, (P, 1): adding them changes neither value nor dtype."""
        self.applied.add(name)
        return torch.zeros(MEMBERS, 1, dtype=torch.int64, device=self._device)


def readers_of_one_input(inputs: Sequence[tuple[str, Tensor]]) -> list[tuple[str, ...]]:
    """Names that follow each other and read the same memory; none that does so only at times or is used twice."""
    runs: list[list[str]] = []
    last: Tensor | None = None
    for name, x in inputs:
        if last is not None and x.data_ptr() == last.data_ptr() and x.shape == last.shape:
            runs[-1].append(name)
        else:
            runs.append([name])
        last = x
    calls = Counter(name for name, _ in inputs)
    found = Counter(map(tuple, runs))
    return [names for names, times in found.items() if len(names) > 1 and all(calls[name] == times for name in names)]


@torch.no_grad()
def probe_logits(network: PreTrainedModel) -> Tensor:
    """Logits (B, T, V) of a tiny batch with different rows, and of one more token by the cache where there is one."""
    vocabulary = network.get_input_embeddings().weight.shape[0]
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


def inspect_uses(network: PreTrainedModel, name_of: Mapping[int, str]) -> tuple[list[Use], dict[str, str], Tensor]:
    """Every use of the parameters `name_of` (by id), why some cannot be perturbed, and the logits of `probe_logits`."""
    faults: dict[str, str] = {}
    uses: list[Use] = []
    hooks = []
    for module in network.modules():
        own = {key: p for key, p in module._parameters.items() if p is not None}
        mine = []
        for key, parameter in own.items():
            name = name_of.get(id(parameter))
            if name is None:
                continue
            kind = _kind(module, key, own)
            if kind is None:
                faults[name] = f"a {parameter.ndim}-dimensional {parameter.dtype} parameter of {type(module).__name__}"
            else:
                mine.append(Use(name=name, module=module, key=key, kind=kind))
        uses += mine
        if mine and mine[0].kind != "other":
            hooks.append(module.register_forward_hook(_check(mine, faults)))
    try:
        logits_BTV = probe_logits(network)
    finally:
        for hook in hooks:
            hook.remove()
    for use in uses:
        if use.kind != "other" and use.input_dim == 0:
            faults.setdefault(use.name, f"{type(use.module).__name__} is not called: other code reads its parameters")
    return uses, faults, logits_BTV


def summary(names: Iterable[str]) -> list[str]:
    """Glob patterns for these parameter names: layer numbers become `*`."""
    return list(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names))


def alike(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal but for rounding, relative to the largest entry."""
    tolerance = torch.finfo(a.dtype).eps ** 0.5
    largest = float(b.nan_to_num().abs().max())
    return a.shape == b.shape and torch.allclose(a, b, rtol=0.0, atol=tolerance * largest, equal_nan=True)


def _kind(
    module: nn.Module, key: str, own: Mapping[str, nn.Parameter]
) -> Literal["linear", "embedding", "norm", "other"] | None:
    """How a parameter can be perturbed, judged by the module that owns it."""
    if not own[key].is_floating_point():
        return None
    if isinstance(module, nn.Linear | Conv1D) and key in ("weight", "bias"):
        return "linear"
    if type(module).forward is nn.Embedding.forward and isinstance(module, nn.Embedding):
        return "embedding" if module.max_norm is None else None
    # Modules that have others within may use their vectors in more ways than the tiny batch shows.
    if all(parameter.ndim == 1 for parameter in own.values()) and not any(module.children()):
        return "norm"
    return "other" if own[key].ndim == 2 else None


def _check(uses: list[Use], faults: dict[str, str]) -> Any:
    """A forward hook that notes the module's input and finds out whether the module does what its kind does."""

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        fault = _fault(module, uses[0].kind, args, output)
        for use in uses:
            use.input_dim = args[0].dim() if args else 1
            if fault is not None:
                faults[use.name] = fault

    return hook


def _fault(module: nn.Module, kind: str, args: tuple[Any, ...], output: Any) -> str | None:
    if not args or not isinstance(output, Tensor):
        return f"{type(module).__name__} is called in a way that is not known"
    x = args[0]
    led_by_rows = x.shape[0] == ROWS and (x.dim() >= 3 or kind == "embedding")
    can_flatten = kind == "linear" or isinstance(module, nn.LayerNorm | nn.RMSNorm)
    flattened = can_flatten and x.dim() == 2 and x.shape[0] in (ROWS * TOKENS, ROWS)
    shared_positions = kind == "embedding" and x.shape[0] == 1
    if not (led_by_rows or flattened or shared_positions):
        return f"{type(module).__name__} gets inputs that are not the batch's rows, of shape {tuple(x.shape)}"
    if kind == "linear" and isinstance(module, nn.Linear) and type(module).forward is not nn.Linear.forward:
        plain = alike(output, F.linear(x, module.weight, module.bias))
        return None if plain else f"{type(module).__name__} is not a plain linear layer"
    if kind == "norm" and not isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return None if _scales(module, args) else f"{type(module).__name__} is not a norm that takes one scale a row"
    return None


def _scales(module: nn.Module, args: tuple[Any, ...]) -> bool:
    """Whether the module run with one vector a row, of shape (B, 1, ..., N), gives each row what its vector gives."""
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

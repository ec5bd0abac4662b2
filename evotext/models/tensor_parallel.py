"""Divides a network's matrices among the processes of a group, by transformers' own plan for its family (`tp_plan`).

    colwise                 y_t = x W_t^T + b_t       W divided by outputs; each process goes on with its part of y
    colwise_gather_output   the same, and the parts of y are joined
    rowwise                 y = sum_t x_t W_t^T + b   W divided by inputs, x is divided already; one all-reduce
    rowwise_split_input     the same, of an x that every process has whole
    embedding_rowwise       each process looks up the tokens of its part of the vocabulary; one all-reduce

Embeddings and the output head are divided by the vocabulary whatever the plan says of them, so that tied ones stay one
tensor. Norms stay whole. Paper: Shoeybi et al. 2019, "Megatron-LM", arXiv 1909.08053.

The weights become plain tensors, of which each process holds its part, and what processes exchange is done by hooks around
the layers. So whatever replaces a layer's `forward`, as a population's noise does, computes a part as it would compute the
whole, and adds no message: where a sum is made, its part of the noise is in the summand.

Shapes: T processes, O outputs, I inputs, V vocabulary.
"""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from evotext.distributed import collectives
from evotext.distributed.parts import Part, Parts
from evotext.distributed.tensor_group import TensorGroup

_BY_OUTPUTS = {"colwise": False, "colwise_gather_output": True, "colwise_rep": True}
"""Whether the parts of the output are joined."""
_BY_INPUTS = {"rowwise": False, "rowwise_split_input": True, "rowwise_rep": True}
"""Whether the input comes whole."""
_BY_VOCABULARY = "embedding_rowwise"
_WHOLE = {"replicate", "replicated_with_grad_allreduce"}
_EACH_ALL = {"colwise": "colwise_gather_output", "rowwise": "rowwise_split_input"}
"""The styles for an attention block whose heads cannot be shared out: each process computes all of it, with divided weights."""
_MAKES_KEYS = ("k_proj", "qkv_proj", "query_key_value")


def check_plan(config: PreTrainedConfig) -> None:
    """Raise ValueError, before any weights are there, for a family without a plan."""
    if not config.get_text_config().base_model_tp_plan:
        raise _cannot(config.model_type, "for which transformers has no plan to divide it")


def shared_out(network: PreTrainedModel, size: int) -> tuple[int, int]:
    """Return by how many processes attention is shared out, and what is between the matrices of a feed-forward part.

    1 where each computes all of it with divided weights, for the parts are joined before they are used.
    """
    styles = _styles(network, size) if size > 1 else {}
    modules = list(network.named_modules())
    whole = {path.rpartition(".")[0] for path, module in modules if _BY_INPUTS.get(styles.get(module, ""))}
    attention = {path.rpartition(".")[0] for path, _ in modules if path.endswith(_MAKES_KEYS)}
    return 1 if whole & attention else size, 1 if whole - attention else size


def among_groups(network: PreTrainedModel, parallel: str | None, size: int | None) -> Parts:
    """Divide a network in the groups of a run whose `model.parallel` is `tensor`. size: processes of a group; None: all."""
    if parallel != "tensor":
        return Parts()
    return divide(network, TensorGroup.of(size or collectives.world_size()))


def divide(network: PreTrainedModel, group: TensorGroup) -> Parts:
    """Leave this process its part of the weights, put the exchange in place, and return what the parts are of.

    Raise ValueError for a network without a plan, or one whose plan has other kinds of division.
    """
    if group.size == 1:
        return Parts()
    check_plan(network.config)
    styles = _styles(network, group.size)
    parts: dict[str, Part] = {}
    made: dict[int, nn.Parameter] = {}
    name_of = {id(parameter): name for name, parameter in network.named_parameters()}
    for module, style in styles.items():
        for key, parameter in list(module._parameters.items()):
            if parameter is None:
                continue
            if id(parameter) not in made:  # a tied one is divided once
                name = name_of[id(parameter)]
                parts[name] = _part(name, parameter, style, group)
                own = parts[name].of(parameter.detach()).clone()  # not a view, which would keep the whole in memory
                made[id(parameter)] = nn.Parameter(own, requires_grad=parameter.requires_grad)
            module._parameters[key] = made[id(parameter)]
    for module, style in styles.items():
        _exchange(module, style, group)
    return Parts(group, parts)


def _cannot(name: str, reason: str) -> ValueError:
    return ValueError(f"parallel: expected null for {name}, {reason}, got 'tensor'")


def _styles(network: PreTrainedModel, size: int) -> dict[nn.Module, str]:
    """Return how each module is divided; those that stay whole are left out."""
    plan: dict[str, str] = dict(network.tp_plan)
    name = type(network).__name__
    for path, style in plan.items():
        if style not in {*_BY_OUTPUTS, *_BY_INPUTS, _BY_VOCABULARY, *_WHOLE}:
            raise _cannot(name, f"whose plan divides {path} by {style}, which we do not know")
    found: dict[str, tuple[nn.Module, str]] = {
        path: (module, plan[rule])
        for path, module in network.named_modules()
        if (rule := re.sub(r"(?<=\.)\d+(?=\.|$)", "*", path)) in plan and plan[rule] not in _WHOLE
    }
    text = network.config.get_text_config()
    heads = int(text.num_attention_heads)
    attention = {path.rpartition(".")[0] for path in found if path.endswith(_MAKES_KEYS)}
    if heads % size == 0 == int(getattr(text, "num_key_value_heads", None) or heads) % size:
        attention.clear()
    styles: dict[nn.Module, str] = {
        module: _EACH_ALL.get(style, style) if path.rpartition(".")[0] in attention else style
        for path, (module, style) in found.items()
    }
    styles[network.get_input_embeddings()] = _BY_VOCABULARY
    head = network.get_output_embeddings()
    if head is not None:
        styles[head] = "colwise_gather_output"
    divided = {id(parameter) for module in styles for parameter in module.parameters(recurse=False)}
    for module in network.modules():
        wanted = nn.Embedding if styles.get(module) == _BY_VOCABULARY else nn.Linear
        if any(id(p) in divided for p in module.parameters(recurse=False)) and (
            module not in styles or not isinstance(module, wanted)
        ):
            raise _cannot(name, f"whose {type(module).__name__} we cannot divide")
    return styles


def _part(name: str, parameter: nn.Parameter, style: str, group: TensorGroup) -> Part:
    if style in _BY_INPUTS and parameter.ndim < 2:  # a bias: added to the sum once
        count = parameter.numel()
        return Part(dim=None, start=0 if group.rank == 0 else count, stop=count, size=count)
    dim = 1 if style in _BY_INPUTS else 0
    count = parameter.shape[dim]
    if (group.size - 1) * -(-count // group.size) >= count:
        raise ValueError(
            f"parallel_size: expected so few processes that each has a part of {name}, whose size is {count}, got {group.size}"
        )
    start, stop = group.bounds(count)
    return Part(dim=dim, start=start, stop=stop, size=count)


def _exchange(module: nn.Module, style: str, group: TensorGroup) -> None:
    """Put hooks around the module by which its processes compute what the whole module does."""
    if isinstance(module, nn.Embedding):
        module.padding_idx = None  # for gradients alone, and it may be in another process's part
        looked_up = _LookedUp(module.num_embeddings, group)
        module.register_forward_pre_hook(looked_up.before)
        module.register_forward_hook(looked_up.after)
        return
    assert isinstance(module, nn.Linear)
    if _BY_INPUTS.get(style):
        module.register_forward_pre_hook(_split(module.in_features, group))
    if style in _BY_INPUTS:
        module.register_forward_hook(lambda _module, _args, y: group.all_reduce(y))
    if _BY_OUTPUTS.get(style):
        outputs = module.out_features
        module.register_forward_hook(lambda _module, _args, y: group.join(y, outputs))


def _split(inputs: int, group: TensorGroup) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    start, stop = group.bounds(inputs)
    return lambda _module, args: (args[0][..., start:stop], *args[1:])


class _LookedUp:
    """Turns ids into rows of this process's part of the table, and zeros into the sum where they are another's."""

    def __init__(self, vocabulary: int, group: TensorGroup) -> None:
        self._start, self._stop = group.bounds(vocabulary)
        self._group = group
        self._elsewhere = torch.empty(0, dtype=torch.bool)

    def before(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        ids = args[0]
        self._elsewhere = (ids < self._start) | (ids >= self._stop)
        return (ids.clamp(self._start, self._stop - 1) - self._start, *args[1:])

    def after(self, _module: nn.Module, _args: tuple[Any, ...], y: Tensor) -> Tensor:
        return self._group.all_reduce(y.masked_fill(self._elsewhere[..., None], 0.0))

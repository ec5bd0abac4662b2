"""The shape of a language model, read off its configuration: its network is made on torch's
meta device, where it has no weights.

Symbols: O outputs, I inputs of a matrix.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from evotext.distributed.tensor_group import TensorGroup
from evotext.models.tensor_parallel import divide, shared_out


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What memory and operations follow from."""

    matrices: tuple[tuple[int, int], ...]
    """(O, I) of each linear layer, stacks of experts taken apart; without the output head."""
    embeddings: tuple[tuple[int, int], ...]
    """(entries, width) of each table, and of the output head if it is not one of them."""
    vectors: tuple[int, ...]
    """Sizes of biases and of the scales of norms."""
    layers: int
    hidden: int
    inner: int
    """Width between the products of a feed-forward block."""
    queries: int
    """Numbers of a token's queries in a layer: heads times their size."""
    keys: int
    """Numbers of a token's keys in a layer, which are as many as its values."""
    heads: int
    vocabulary: int

    @property
    def tensors(self) -> tuple[int, ...]:
        """Numbers of each parameter."""
        return (*(o * i for o, i in (*self.embeddings, *self.matrices)), *self.vectors)

    @property
    def parameters(self) -> int:
        """Numbers in all."""
        return sum(self.tensors)

    @property
    def largest(self) -> int:
        """Numbers of the largest parameter."""
        return max(self.tensors)

    @property
    def trunk(self) -> int:
        """Weights that each position is multiplied with below the output head, all experts included."""
        return sum(o * i for o, i in self.matrices)


def without_weights(config: PreTrainedConfig) -> PreTrainedModel:
    """Return the network on torch's meta device."""
    with torch.device("meta"):
        network: PreTrainedModel = AutoModelForCausalLM.from_config(copy.deepcopy(config))
    return network


def shape_of(config: PreTrainedConfig, tensor: int = 1) -> Shape:
    """Return the shape of the causal language model that this configuration describes.

    tensor: of the largest part, where so many processes hold it together. Raise ValueError for one that cannot be divided.
    """
    network = without_weights(config)
    text = network.config.get_text_config()
    in_attention, between = shared_out(network, tensor)
    divide(network, TensorGroup(tensor))
    tables = {id(m.weight): m.weight for m in network.modules() if isinstance(m, nn.Embedding)}
    head = network.get_output_embeddings()
    if head is not None:
        tables[id(head.weight)] = head.weight
    transposed = {id(m.weight) for m in network.modules() if isinstance(m, Conv1D)}
    matrices: list[tuple[int, int]] = []
    vectors: list[int] = []
    for parameter in network.parameters():
        if id(parameter) in tables:
            continue
        if parameter.ndim < 2:
            vectors.append(parameter.numel())
            continue
        *each, outputs, inputs = parameter.shape
        pair = (inputs, outputs) if id(parameter) in transposed else (outputs, inputs)
        matrices += [pair] * math.prod(each)
    heads = int(text.num_attention_heads)
    size = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    kv_heads = int(getattr(text, "num_key_value_heads", None) or heads)
    inner = getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * text.hidden_size
    return Shape(
        matrices=tuple(matrices),
        embeddings=tuple((int(t.shape[0]), int(t.shape[1])) for t in tables.values()),
        vectors=tuple(vectors),
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        inner=-(-int(inner) // between),
        queries=heads * size // in_attention,
        keys=kv_heads * size // in_attention,
        heads=heads // in_attention,
        vocabulary=int(text.vocab_size),
    )

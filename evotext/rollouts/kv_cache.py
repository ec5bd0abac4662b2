"""A key-value cache whose rows can leave, and whose buffers are not copied at every token.

transformers' dynamic cache concatenates at each step, which for many short rows costs as much as the layers
themselves. Here a step writes into a preallocated slot and attention reads a view of the filled part.

Shape suffixes: B rows, H heads, S slots, T new tokens, D head size.
"""

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class RowLayer(CacheLayerMixin):
    """Keys and values of one attention layer, (B, H, S, D), of which the first `length` slots are filled."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers once the layer's shapes are known."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = _empty_like(key_states, self.capacity)
        self.values = _empty_like(value_states, self.capacity)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Store T new slots; return views of all filled ones."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        end = self.length + key_states.shape[2]
        assert end <= self.capacity, (end, self.capacity)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Filled slots after the coming step, and the offset of the first one."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Filled slots."""
        return self.length

    def get_max_length(self) -> int:
        """Slots in all."""
        return self.capacity


class RowCache(Cache):
    """One `RowLayer` for each attention layer of a model."""

    def __init__(self, layers: int, capacity: int) -> None:
        super().__init__(layers=[RowLayer(capacity) for _ in range(layers)])

    @property
    def length(self) -> int:
        """Filled slots; every layer has as many."""
        return self.layers[0].length

    def take(self, row_N: Tensor, capacity: int) -> "RowCache":
        """A copy that holds these rows (repeats allowed) and has room for `capacity` slots."""
        copy = RowCache(len(self.layers), capacity)
        for source, target in zip(self.layers, copy.layers, strict=True):
            if not source.is_initialized:
                continue
            target.dtype, target.device, target.length = source.dtype, source.device, source.length
            target.keys = _gather(source.keys, row_N, source.length, capacity)
            target.values = _gather(source.values, row_N, source.length, capacity)
            target.is_initialized = True
        return copy

    @staticmethod
    def concatenate(caches: "list[RowCache]") -> "RowCache":
        """The rows of several caches, one after another; shorter ones are filled up with empty slots at their end."""
        length = max(cache.length for cache in caches)
        joined = RowCache(len(caches[0].layers), length)
        for i, target in enumerate(joined.layers):
            parts = [cache.layers[i] for cache in caches]
            target.dtype, target.device, target.length = parts[0].dtype, parts[0].device, length
            target.keys = torch.cat([_pad(part.keys, part.length, length) for part in parts])
            target.values = torch.cat([_pad(part.values, part.length, length) for part in parts])
            target.is_initialized = True
        return joined


def _empty_like(states_BHTD: Tensor, slots: int) -> Tensor:
    rows, heads, _, size = states_BHTD.shape
    return states_BHTD.new_empty(rows, heads, slots, size)


def _gather(buffer_BHSD: Tensor, row_N: Tensor, length: int, slots: int) -> Tensor:
    _, heads, _, size = buffer_BHSD.shape
    copy = buffer_BHSD.new_empty(row_N.numel(), heads, slots, size)
    copy[:, :, :length] = buffer_BHSD[:, :, :length].index_select(0, row_N)
    return copy


def _pad(buffer_BHSD: Tensor, filled: int, slots: int) -> Tensor:
    # Zeros, not garbage: a masked NaN would still poison the attention's weighted sum.
    padded = buffer_BHSD.new_zeros(*buffer_BHSD.shape[:2], slots, buffer_BHSD.shape[3])
    padded[:, :, :filled] = buffer_BHSD[:, :, :filled]
    return padded

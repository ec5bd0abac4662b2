"""Keys and values of one attention layer, whose rows can leave and whose buffers are not copied at every token.

transformers' dynamic cache concatenates at each step, which for many short rows costs as much as the layers
themselves. Here a step writes into a preallocated slot and attention reads a view of the filled part.

Shape suffixes: B rows, N chosen rows, H heads, S slots, T new tokens, D head size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin


class RowLayer(CacheLayerMixin):
    """Keys and values (B, H, S, D), of which the first `length` slots are filled; `RowCache.advance` counts them."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers once the layer's shapes are known."""
        self._hold(_empty_like(key_states, self.capacity), _empty_like(value_states, self.capacity), self.length)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Store T new slots behind the filled ones; return views of both."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        end = self.length + key_states.shape[2]
        assert end <= self.capacity, (end, self.capacity)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the filled slots after the coming step, and the offset of the first one."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Return the number of filled slots."""
        return self.length

    def get_max_length(self) -> int:
        """Return the number of slots."""
        return self.capacity

    def take(self, row_N: Tensor, capacity: int) -> "RowLayer":
        """Return a copy of these rows (repeats allowed) with room for `capacity` slots."""
        copy = RowLayer(capacity)
        if self.is_initialized:
            keys, values = (_gather(buffer, row_N, self.length, capacity) for buffer in (self.keys, self.values))
            copy._hold(keys, values, self.length)
        return copy

    def concatenate(self, others: "Sequence[RowLayer]") -> "RowLayer":
        """Return its rows, then the others'; shorter ones are filled up with empty slots at their end."""
        parts = [self, *others]
        length = max(part.length for part in parts)
        joined = RowLayer(length)
        keys = torch.cat([_pad(part.keys, part.length, length) for part in parts])
        values = torch.cat([_pad(part.values, part.length, length) for part in parts])
        joined._hold(keys, values, length)
        return joined

    def _hold(self, keys: Tensor, values: Tensor, length: int) -> None:
        self.dtype, self.device = keys.dtype, keys.device
        self.keys, self.values, self.length = keys, values, length
        self.is_initialized = True


class ReadLayer(CacheLayerMixin):
    """Rows of a `RowLayer` (repeats allowed) that read one pass more: copied while their layer runs, and never kept."""

    def __init__(self, held: RowLayer, row_N: Tensor) -> None:
        super().__init__()
        self._held, self._row_N = held, row_N

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: there is nothing to allocate."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Return what is held of each row with T new slots behind it."""
        rows = self._held.take(self._row_N, self._held.length + key_states.shape[2])
        return rows.update(key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the filled slots after the coming step, and the offset of the first one."""
        return self._held.get_mask_sizes(query_length)

    def get_seq_length(self) -> int:
        """Return the number of filled slots."""
        return self._held.length

    def get_max_length(self) -> int:
        """Return the number of slots that are filled; the pass brings its own."""
        return self._held.length


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

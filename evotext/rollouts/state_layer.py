"""The state of one recurrent layer (state-space, linear attention, short convolution), whose rows can leave.

Such a layer sums up all that a row has read in states of fixed size. What it has read cannot be taken back, so a row that
is only carried along gets its states back after the step (`held`, `give_back`).

Shape suffixes: B rows, N chosen rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin, LinearAttentionLayer

from evotext.rollouts.kv_layer import RowLayer

States = dict[str, dict[int, Tensor]]


class StateLayer(LinearAttentionLayer):
    """transformers' layer, each state led by its rows. length: tokens read, padding and carried rows' included."""

    def __init__(self, number_of_states: int) -> None:
        super().__init__(number_of_states=number_of_states)
        self.length = 0

    def take(self, row_N: Tensor, capacity: int) -> "StateLayer":
        """Return a copy of these rows (repeats allowed). capacity: of attention layers; states do not grow."""
        copy = StateLayer(self.number_of_states)
        copy.length = self.length
        _fill(copy, self, held(self, row_N))
        return copy

    def concatenate(self, others: "Sequence[StateLayer]") -> "StateLayer":
        """Return its rows, then the others'."""
        joined = StateLayer(self.number_of_states)
        joined.length = max(part.length for part in [self, *others])
        _fill(joined, self, _joined([self, *others]))
        return joined


class HybridLayer(LinearAttentionLayer, CacheLayerMixin):
    """A layer that keeps states and, in `attention`, keys and values."""

    def __init__(self, number_of_states: int, attention: RowLayer) -> None:
        LinearAttentionLayer.__init__(self, number_of_states=number_of_states)
        self.attention = attention

    @property
    def length(self) -> int:
        """Filled slots."""
        return self.attention.length

    @length.setter
    def length(self, length: int) -> None:
        self.attention.length = length

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Store T new slots behind the filled ones; return views of both."""
        return self.attention.update(key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the filled slots after the coming step, and the offset of the first one."""
        return self.attention.get_mask_sizes(query_length)

    def get_seq_length(self) -> int:
        """Return the filled slots."""
        return self.attention.get_seq_length()

    def get_max_length(self) -> int:
        """Return the slots in all."""
        return self.attention.get_max_length()

    def take(self, row_N: Tensor, capacity: int) -> "HybridLayer":
        """Return a copy of these rows (repeats allowed) with room for `capacity` slots."""
        copy = HybridLayer(self.number_of_states, self.attention.take(row_N, capacity))
        _fill(copy, self, held(self, row_N))
        return copy

    def concatenate(self, others: "Sequence[HybridLayer]") -> "HybridLayer":
        """Return its rows, then the others'."""
        attention = self.attention.concatenate([other.attention for other in others])
        joined = HybridLayer(self.number_of_states, attention)
        _fill(joined, self, _joined([self, *others]))
        return joined


def held(layer: LinearAttentionLayer, row_N: Tensor) -> States:
    """Return a copy of these rows' states, by kind and number."""
    return {
        kind: {i: state.index_select(0, row_N) for i, state in states.items() if state is not None}
        for kind, states in _kinds(layer).items()
    }


def give_back(layer: LinearAttentionLayer, row_N: Tensor, states: States) -> None:
    """Put what `held` copied back into the same rows."""
    for kind, own in _kinds(layer).items():
        for i, state in states[kind].items():
            own[i].index_copy_(0, row_N, state)


def _kinds(layer: LinearAttentionLayer) -> dict[str, dict[int, Tensor]]:
    return {"conv": layer.conv_states, "recurrent": layer.recurrent_states}


def _joined(parts: Sequence[LinearAttentionLayer]) -> States:
    kinds = [_kinds(part) for part in parts]
    return {
        kind: {i: torch.cat([part[kind][i] for part in kinds]) for i, state in states.items() if state is not None}
        for kind, states in kinds[0].items()
    }


def _fill(new: LinearAttentionLayer, like: LinearAttentionLayer, states: States) -> None:
    new.dtype, new.device = like.dtype, like.device
    new.conv_kernel_size, new.has_previous_state = dict(like.conv_kernel_size), dict(like.has_previous_state)
    new.conv_states |= states["conv"]
    new.recurrent_states |= states["recurrent"]
    new.is_conv_states_initialized |= dict.fromkeys(states["conv"], True)
    new.is_recurrent_states_initialized |= dict.fromkeys(states["recurrent"], True)

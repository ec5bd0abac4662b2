"""The state of one recurrent layer (state-space, linear attention, short convolution), whose rows can leave.

Such a layer sums up all that a row has read in states of fixed size. What it has read cannot be taken back, so a row that
is only carried along gets its states back after the step (`held`, `give_back`).

Shape suffixes: B rows, N chosen rows.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import LinearAttentionLayer

States = dict[str, dict[int, Tensor]]


class StateLayer(LinearAttentionLayer):
    """transformers' layer, each state led by its rows. length: tokens read, padding and carried rows' included."""

    def __init__(self, number_of_states: int) -> None:
        super().__init__(number_of_states=number_of_states)
        self.length = 0

    def take(self, row_N: Tensor, capacity: int) -> "StateLayer":
        """A copy of these rows (repeats allowed). capacity: of attention layers; states do not grow."""
        return self._made_of(self.held(row_N), self.length)

    def held(self, row_N: Tensor) -> States:
        """A copy of these rows' states, by kind and number."""
        return {
            kind: {i: state.index_select(0, row_N) for i, state in states.items() if state is not None}
            for kind, states in self._kinds().items()
        }

    def give_back(self, row_N: Tensor, states: States) -> None:
        """Put what `held` copied back into the same rows."""
        for kind, own in self._kinds().items():
            for i, state in states[kind].items():
                own[i].index_copy_(0, row_N, state)

    def concatenate(self, others: "Sequence[StateLayer]") -> "StateLayer":
        """Its rows, then the others'."""
        parts = [self, *others]
        kinds = [part._kinds() for part in parts]
        joined = {
            kind: {i: torch.cat([part[kind][i] for part in kinds]) for i, state in states.items() if state is not None}
            for kind, states in self._kinds().items()
        }
        return self._made_of(joined, max(part.length for part in parts))

    def _kinds(self) -> dict[str, dict[int, Tensor]]:
        return {"conv": self.conv_states, "recurrent": self.recurrent_states}

    def _made_of(self, states: States, length: int) -> "StateLayer":
        copy = StateLayer(self.number_of_states)
        copy.dtype, copy.device, copy.length = self.dtype, self.device, length
        copy.conv_kernel_size, copy.has_previous_state = dict(self.conv_kernel_size), dict(self.has_previous_state)
        copy.conv_states |= states["conv"]
        copy.recurrent_states |= states["recurrent"]
        copy.is_conv_states_initialized |= dict.fromkeys(states["conv"], True)
        copy.is_recurrent_states_initialized |= dict.fromkeys(states["recurrent"], True)
        return copy

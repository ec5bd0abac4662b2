"""What a network keeps of the tokens it has read, for rows that come, go and move.

Shape suffixes: N chosen rows.
"""

from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache

from evotext.models.cached_layers import RECURRENT, cached_layers
from evotext.rollouts.kv_layer import RowLayer
from evotext.rollouts.state_layer import StateLayer, States


class RowCache(Cache):
    """One `RowLayer` or `StateLayer` for each layer of a model.

    `length` slots are filled; every layer has read as many tokens. A pass of the network fills further ones, which count
    from `advance` on.
    """

    def __init__(self, layers: Sequence[RowLayer | StateLayer]) -> None:
        super().__init__(layers=list(layers))
        self._states = [layer for layer in layers if isinstance(layer, StateLayer)]

    @classmethod
    def empty(cls, config: PreTrainedConfig, capacity: int) -> "RowCache":
        """As this model needs it, with room for `capacity` slots. Models with other layers are refused when they load."""
        return cls(
            [
                StateLayer(layer.number_of_states) if isinstance(layer, RECURRENT) else RowLayer(capacity)
                for layer in cached_layers(config)
            ]
        )

    @property
    def length(self) -> int:
        """Filled slots."""
        return self.layers[0].length

    @property
    def recurrent(self) -> bool:
        """Whether some layers keep states, which have to read a row's tokens one after another and no others."""
        return bool(self._states)

    @property
    def attends(self) -> bool:
        """Whether some layers keep keys and values."""
        return len(self._states) < len(self.layers)

    def advance(self, tokens: int) -> None:
        """Count what the last pass has filled."""
        for layer in self.layers:
            layer.length += tokens

    def held(self, row_N: Tensor) -> list[States]:
        """The states of these rows, layer by layer; keys and values need not be held, for what is masked does not count."""
        return [layer.held(row_N) for layer in self._states]

    def give_back(self, row_N: Tensor, states: list[States]) -> None:
        """Put what `held` copied back into the same rows."""
        for layer, own in zip(self._states, states, strict=True):
            layer.give_back(row_N, own)

    def take(self, row_N: Tensor, capacity: int) -> "RowCache":
        """A copy that holds these rows (repeats allowed) and has room for `capacity` slots."""
        return RowCache([layer.take(row_N, capacity) for layer in self.layers])

    @staticmethod
    def concatenate(caches: "Sequence[RowCache]") -> "RowCache":
        """The rows of several caches, one after another."""
        first, *others = caches
        return RowCache(
            [layer.concatenate([cache.layers[i] for cache in others]) for i, layer in enumerate(first.layers)]
        )

"""The cache of a network for rows that come, go and move.

Shape suffixes: N chosen rows.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DummyLayer

from evotext.models.cached_layers import HYBRID, NOTHING, RECURRENT, cached_layers
from evotext.rollouts.kv_layer import ReadLayer, RowLayer
from evotext.rollouts.state_layer import HybridLayer, StateLayer, States, give_back, held


class NoLayer(DummyLayer):
    """A layer that keeps nothing and only counts."""

    def __init__(self, length: int = 0) -> None:
        super().__init__()
        self.length = length

    def take(self, row_N: Tensor, capacity: int) -> "NoLayer":
        """Return the same of any rows."""
        return NoLayer(self.length)

    def concatenate(self, others: "Sequence[NoLayer]") -> "NoLayer":
        """Return the same of all rows."""
        return NoLayer(max(part.length for part in [self, *others]))


class RowCache(Cache):
    """One layer of ours for each layer of a model.

    `length` slots are filled; every layer has read as many tokens. A pass of the network fills further ones, which count
    from `advance` on.
    """

    def __init__(self, layers: Sequence[RowLayer | StateLayer | HybridLayer | NoLayer]) -> None:
        super().__init__(layers=list(layers))
        self._with_states = [layer for layer in layers if isinstance(layer, StateLayer | HybridLayer)]

    @classmethod
    def empty(cls, config: PreTrainedConfig, capacity: int) -> "RowCache":
        """Return what this model needs, with room for `capacity` slots. Models with other layers are refused when they load."""
        return cls([_empty(layer, capacity) for layer in cached_layers(config)])

    @property
    def is_linear(self) -> list[bool]:
        """True for layers that keep states alone: transformers makes its masks by the others."""
        return [isinstance(layer, StateLayer) for layer in self.layers]

    @property
    def length(self) -> int:
        """Filled slots."""
        return self.layers[0].length

    def advance(self, tokens: int) -> None:
        """Count what the last pass has filled."""
        for layer in self.layers:
            layer.length += tokens

    def held(self, row_N: Tensor) -> list[States]:
        """Return the states of these rows, layer by layer.

        Keys and values need not be held, for what is masked does not count.
        """
        return [held(layer, row_N) for layer in self._with_states]

    def give_back(self, row_N: Tensor, states: list[States]) -> None:
        """Put what `held` copied back into the same rows."""
        for layer, own in zip(self._with_states, states, strict=True):
            give_back(layer, row_N, own)

    def take(self, row_N: Tensor, capacity: int) -> "RowCache":
        """Return a copy that holds these rows (repeats allowed) and has room for `capacity` slots."""
        return RowCache([layer.take(row_N, capacity) for layer in self.layers])

    def read(self, row_N: Tensor) -> Cache:
        """Return what these rows (repeats allowed) read in one pass: a layer's copy lasts while the layer runs."""
        return Cache(
            layers=[
                ReadLayer(layer, row_N) if isinstance(layer, RowLayer) else layer.take(row_N, self.length)
                for layer in self.layers
            ]
        )

    @staticmethod
    def concatenate(caches: "Sequence[RowCache]") -> "RowCache":
        """Return the rows of several caches, one after another."""
        first, *others = caches
        return RowCache(
            [layer.concatenate([cache.layers[i] for cache in others]) for i, layer in enumerate(first.layers)]
        )


def _empty(layer: Any, capacity: int) -> RowLayer | StateLayer | HybridLayer | NoLayer:
    if type(layer) is HYBRID:
        return HybridLayer(layer.number_of_states, RowLayer(capacity))
    if type(layer) is RECURRENT:
        return StateLayer(layer.number_of_states)
    return NoLayer() if type(layer) is NOTHING else RowLayer(capacity)

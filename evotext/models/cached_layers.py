"""What a network keeps of the tokens it has read, by its configuration."""

import inspect
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer

ATTENTION = (DynamicLayer, DynamicSlidingWindowLayer)
"""Layers that keep keys and values of every token."""
RECURRENT = LinearAttentionLayer
"""Layers that keep states of fixed size: state-space, linear attention, short convolutions."""


def cached_layers(config: PreTrainedConfig) -> list[Any]:
    """transformers' cache layers of this model, empty."""
    return list(DynamicCache(config=config.get_text_config()).layers)


def is_recurrent(config: PreTrainedConfig) -> bool:
    """Whether some layers keep states, which have to read a row's tokens one after another."""
    return any(isinstance(layer, RECURRENT) for layer in cached_layers(config))


def cache_key(network: PreTrainedModel) -> str:
    """What the network's `forward` calls its cache. Raises ValueError for networks with a cache of their own."""
    known = inspect.signature(network.forward).parameters
    if "past_key_values" in known:
        return "past_key_values"
    if "cache_params" in known and all(isinstance(layer, RECURRENT) for layer in cached_layers(network.config)):
        return "cache_params"
    raise ValueError(f"expected a network that takes one of transformers' caches, got {type(network).__name__}")

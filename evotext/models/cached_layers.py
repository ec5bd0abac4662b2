"""The layers in which a network keeps what it has read, by its configuration."""

import inspect
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import (
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionLayer,
)

ATTENTION = (DynamicLayer, DynamicSlidingWindowLayer)
"""Layers that keep keys and values of every token."""
RECURRENT = LinearAttentionLayer
"""Layers that keep states of fixed size: state-space, linear attention, short convolutions."""
HYBRID = LinearAttentionAndFullAttentionLayer
"""Layers that keep both."""
NOTHING = DummyLayer
"""Layers that keep nothing: they have no attention, or read other layers' keys and values."""


def cached_layers(config: PreTrainedConfig) -> list[Any]:
    """Return transformers' cache layers of this model, empty. Raise ValueError for models that have another cache."""
    text = config.get_text_config()
    try:
        return list(DynamicCache(config=text).layers)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"expected a model with one of transformers' caches, got {text.model_type}") from error


def is_recurrent(config: PreTrainedConfig) -> bool:
    """Return whether some layers keep states, which have to read a row's tokens one after another."""
    return any(isinstance(layer, RECURRENT) for layer in cached_layers(config))


def keeps_keys(config: PreTrainedConfig) -> bool:
    """Return whether some layers keep keys and values."""
    return any(type(layer) in (*ATTENTION, HYBRID) for layer in cached_layers(config))


def unknown_layers(config: PreTrainedConfig) -> list[str]:
    """Return the kinds of layers that keep something other than keys, values and states, by name."""
    known = {*ATTENTION, RECURRENT, HYBRID, NOTHING}
    return sorted({type(layer).__name__ for layer in cached_layers(config) if type(layer) not in known})


def cache_key(network: PreTrainedModel) -> str:
    """Return what the network's `forward` calls its cache. Raise ValueError for networks with a cache of their own."""
    known = inspect.signature(network.forward).parameters
    if "past_key_values" in known:
        return "past_key_values"
    if "cache_params" in known and all(type(layer) is RECURRENT for layer in cached_layers(network.config)):
        return "cache_params"
    raise ValueError(f"expected a network that takes one of transformers' caches, got {type(network).__name__}")

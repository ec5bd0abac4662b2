"""Gradient checkpointing: a layer keeps its input alone and is computed again in the backward pass (arXiv 1604.06174).

The layers are those that transformers marks for it. Its own switch acts in training mode only, where some families drop
activations out; a policy's log-probabilities have to be those of the sampler, so the network stays in evaluation mode here
and the layers' forward passes are wrapped from outside. A key-value cache would be written twice: rows that are checkpointed
are run whole, without shared openings.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def check_checkpointable(network: PreTrainedModel) -> None:
    """Raise ValueError for a network without a layer that could be checkpointed."""
    if not _layers(network):
        raise ValueError(
            f"gradient_checkpointing: expected a network with layers that transformers can checkpoint, got "
            f"{type(network).__name__}, which has none; set it to false and lower micro_rows"
        )


@contextmanager
def checkpointed_layers(network: PreTrainedModel, on: bool) -> Iterator[None]:
    """Keep only the layers' inputs in forward passes with gradients within the block. on: False changes nothing."""
    layers = _layers(network) if on and torch.is_grad_enabled() else []
    try:
        for layer in layers:
            # Nothing random happens in evaluation mode, so there is no generator's state to keep.
            forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
            layer.__dict__["forward"] = forward
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _layers(network: PreTrainedModel) -> list[GradientCheckpointingLayer]:
    """Return the layers that can be checkpointed and have no replaced forward pass yet."""
    found = [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]
    return [layer for layer in found if "forward" not in layer.__dict__]

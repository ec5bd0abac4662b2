"""Whole attention masks in the form that a network's attention takes.

Shape suffixes: B rows, T new tokens, S cache slots.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel


def as_read_by(network: PreTrainedModel, may_read_B1TS: Tensor) -> Tensor:
    """Return the mask for this network: most select by it, eager attention adds it to its scores.

    Masks of four dimensions are taken by transformers as they are, whatever the model.
    """
    if network.config._attn_implementation != "eager":
        return may_read_B1TS
    return torch.zeros_like(may_read_B1TS, dtype=network.dtype).masked_fill_(
        ~may_read_B1TS, torch.finfo(network.dtype).min
    )

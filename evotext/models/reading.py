"""The arguments with which a network reads rows of different length, besides new ids and a cache.

Rows are cached side by side in slots; where a row has fewer tokens than others, some of its slots hold none. Three kinds of
networks tell tokens from empty slots in three ways:

    by position      most: each token's position and, whole, which slots it may read; empty slots may stand anywhere
    by slot          positions are counted along the cache, as Bloom's and MPT's biases (ALiBi) do: a row's tokens must lie
                     together, with empty slots in front alone, and the network makes its own mask of them
    one by one       recurrent layers take in whatever they are given: rows read in step, and empty slots come after

Shape suffixes: B rows, T new tokens, S cache slots.
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from evotext.models.cached_layers import cache_key, is_recurrent, keeps_keys


class Reading:
    """The way in which one network reads. Raises ValueError for networks with a cache of their own."""

    def __init__(self, network: PreTrainedModel) -> None:
        self._network = network
        takes = inspect.signature(network.forward).parameters
        alibi = bool(getattr(network.config.get_text_config(), "alibi", False))
        self.cache_key = cache_key(network)
        """The name of the cache among the arguments of `forward`."""
        self.recurrent = is_recurrent(network.config)
        """True if some layers read a row's tokens one after another and no others."""
        self.attends = keeps_keys(network.config)
        """True if some layers keep keys and values."""
        self.by_slot = self.attends and not self.recurrent and (alibi or "position_ids" not in takes)
        """True if a row's tokens must lie together."""
        self._takes_positions = "position_ids" in takes and not alibi

    def arguments(self, valid_BS: Tensor, position_BT: Tensor, cache: Any, *, start: int) -> dict[str, Any]:
        """Return the arguments of `forward` besides ids, to read T tokens per row into the slots from `start` on.

        valid_BS: which slots hold a token, the new ones included. position_BT: of the new tokens in their rows.
        """
        mask = self._mask(valid_BS[:, : start + position_BT.shape[1]], start)
        positions = {"position_ids": position_BT} if self._takes_positions else {}
        return {"attention_mask": mask, **positions, self.cache_key: cache, "use_cache": True}

    def _mask(self, valid_BS: Tensor, start: int) -> Tensor | None:
        """Return the mask, (B, S) or (B, 1, T, S); None where plain causal attention is right.

        A padding token reads itself, so that its softmax is not empty.
        """
        slots = valid_BS.shape[1]
        if (slots - start == 1 or start == 0) and bool(valid_BS.all()):
            return None
        if self.recurrent or self.by_slot:
            return valid_BS.long() if self.attends else None
        slot_S = torch.arange(slots, device=valid_BS.device)
        new_T1 = slot_S[start:, None]
        mask_BTS = (valid_BS[:, None] & (slot_S <= new_T1)) | (slot_S == new_T1)
        return as_read_by(self._network, mask_BTS[:, None])


def as_read_by(network: PreTrainedModel, may_read_B1TS: Tensor) -> Tensor:
    """Return the mask for this network: most select by it, eager attention adds it to its scores.

    Masks of four dimensions are taken by transformers as they are, whatever the model.
    """
    if network.config._attn_implementation != "eager":
        return may_read_B1TS
    return torch.zeros_like(may_read_B1TS, dtype=network.dtype).masked_fill_(
        ~may_read_B1TS, torch.finfo(network.dtype).min
    )

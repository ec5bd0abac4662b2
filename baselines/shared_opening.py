"""Rows that begin alike share the computation of their beginning, gradients included: a group's answers have one prompt.

The openings go through the network once each; the rest of every row then reads their keys and values. This is the same
function of the weights as running whole rows, with fewer positions.

Shapes: B rows, U different openings, T tokens of an opening, S tokens after it, D hidden size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from evotext.models.cached_layers import is_recurrent
from evotext.models.reading import Reading, as_read_by
from evotext.policy.actions import Actions

# Two passes with masks cost more per position than one: sharing has to save at least this part of the positions.
LEAST_SAVING = 0.1


@dataclass(frozen=True, kw_only=True)
class Openings:
    """The tokens before each row's first action, once for all rows that share them; padded on the right."""

    tokens_UT: Tensor
    of_row_B: Tensor
    """The opening of each row."""
    length_B: Tensor
    """Tokens of each row's opening, at least 1."""
    longest_rest: int
    """S."""

    @property
    def positions(self) -> int:
        """Positions that the network computes, padding included."""
        return self.tokens_UT.numel() + len(self.of_row_B) * self.longest_rest


def shared_openings(actions: Actions) -> Openings | None:
    """Return the rows' openings, or None where sharing them saves too little."""
    length_B = torch.where(actions.mask_BN[:, 0], actions.position_BN[:, 0], actions.length_B)
    longest, longest_rest = int(length_B.max()), int((actions.length_B - length_B).max())
    if int(length_B.min()) < 1 or longest_rest < 1:
        return None
    inside_BT = torch.arange(longest, device=length_B.device) < length_B[:, None]
    opening_BT = torch.where(inside_BT, actions.tokens_BT[:, :longest], -1)
    tokens_UT, of_row_B = opening_BT.unique(dim=0, return_inverse=True)
    openings = Openings(
        tokens_UT=tokens_UT.clamp(min=0), of_row_B=of_row_B, length_B=length_B, longest_rest=longest_rest
    )
    return openings if openings.positions <= (1 - LEAST_SAVING) * actions.tokens_BT.numel() else None


def hidden_states(network: PreTrainedModel, tokens_BT: Tensor, length_B: Tensor, openings: Openings) -> Tensor:
    """Return last hidden states (B, 1 + S, D): of each row's last opening token, then of the tokens after it.

    tokens_BT, length_B: whole rows, as in `Actions`.
    """
    cache = DynamicCache()
    # Causal attention never reads what is padded on the right, so that no mask is needed here.
    opening_UTD = network.base_model(
        input_ids=openings.tokens_UT, past_key_values=cache, use_cache=True
    ).last_hidden_state
    cache.batch_select_indices(openings.of_row_B)
    position_BS = openings.length_B[:, None] + torch.arange(openings.longest_rest, device=tokens_BT.device)
    position_BS = torch.minimum(position_BS, length_B[:, None] - 1)  # padding stays inside the row
    rest_BSD = network.base_model(
        input_ids=tokens_BT.gather(1, position_BS),
        attention_mask=_mask(network, openings),
        position_ids=position_BS,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    before_BD = opening_UTD[openings.of_row_B, openings.length_B - 1]
    return torch.cat([before_BD[:, None], rest_BSD], dim=1)


def _mask(network: PreTrainedModel, openings: Openings) -> Tensor:
    """Return (B, 1, S, T + S): the rest reads its own opening, and itself up to each token. B is 1 where all are alike."""
    longest, rest, length_B = openings.tokens_UT.shape[1], openings.longest_rest, openings.length_B
    if bool((length_B == longest).all()):
        length_B = length_B[:1]
    rows, device = len(length_B), length_B.device
    opening_BT = torch.arange(longest, device=device) < length_B[:, None]
    causal_SS = torch.ones(rest, rest, dtype=torch.bool, device=device).tril()
    parts = [opening_BT[:, None, None].expand(rows, 1, rest, longest), causal_SS.expand(rows, 1, rest, rest)]
    return as_read_by(network, torch.cat(parts, dim=-1))


@torch.no_grad()
def network_shares(network: PreTrainedModel) -> bool:
    """Return whether sharing is right for this network: in one small example, states must be those of whole rows.

    Never with recurrent layers, whose states are no function of positions that a mask could choose from, nor where positions
    are counted along the cache.
    """
    if is_recurrent(network.config) or Reading(network).by_slot:
        return False
    vocabulary = network.config.get_text_config().vocab_size
    tokens_BT = torch.tensor([[1, 3, 2, 4, 1], [1, 3, 2, 1, 3]], device=network.device) % vocabulary
    openings = Openings(
        tokens_UT=tokens_BT[:1, :3],
        of_row_B=torch.zeros(2, dtype=torch.int64, device=network.device),
        length_B=torch.full((2,), 3, device=network.device),
        longest_rest=2,
    )
    length_B = torch.full((2,), 5, device=network.device)
    whole_BTD = network.base_model(input_ids=tokens_BT, use_cache=False).last_hidden_state
    shared_BTD = hidden_states(network, tokens_BT, length_B, openings)
    tolerance = 100 * torch.finfo(whole_BTD.dtype).eps * float(whole_BTD.abs().max())
    return torch.allclose(shared_BTD, whole_BTD[:, 2:], rtol=0, atol=tolerance)

"""The network's view of actions: log-probabilities, entropies and last hidden states, with or without gradients.

Only positions that predict an action go through the output head, and they do so in chunks that are computed again in
the backward pass, since the logits (tokens x vocabulary) are what fills the memory of policy-gradient training.

The steps of a family between its last hidden state and its logits (a soft cap, a scale, a transformation) are not read
from its configuration alone: each network is checked once for whether its logits are what we would compute. If not, whole
rows go through the network's own forward pass, which is right for every family and costs the prompts' logits too.

Shapes: B rows, K rows in a chunk, T tokens, N actions, M actions in a chunk, V vocabulary, D hidden size.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from evotext.distributed.sharding import gathered, is_sharded
from evotext.models.flops import ForwardFlops
from evotext.models.language_model import Adapter
from evotext.policy.actions import Actions
from evotext.policy.output_head import chosen, entropies, head_explains_logits, head_logits, log_probabilities
from evotext.types import Cost

from .gradient_checkpointing import checkpointed_layers
from .shared_opening import Openings, hidden_states, network_shares, shared_openings

# Logits held at once: 2**24 numbers are 64 MiB in float32.
MAX_LOGITS = 1 << 24
# The entropy is averaged over this many actions; computing all of them takes a quarter of the head's time.
MOST_ENTROPIES = 256


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The network's scores of each action; 0 where there is none."""

    logprob_BN: Tensor
    """Log-probability at the sampling temperature (float32 or wider)."""
    entropy_BN: Tensor
    """Entropy in nats of the distribution that the action was drawn from; NaN at actions whose entropy was not asked for."""
    hidden_BND: Tensor
    """Last hidden state before the action was chosen: the state that a value head judges."""
    final_hidden_BD: Tensor
    """Last hidden state at the end of the conversation: the state that a truncated episode was left in."""


class Scorer:
    """Scores actions with a network.

    by_head: whether only the actions' positions go through the output head (found out from the network itself).
    shares: whether rows that begin alike share the computation of their beginning (found out likewise).
    checkpoints: whether layers are computed again in the backward pass; rows then share nothing.
    entropies: whether every action has its entropy, with a gradient; otherwise some have theirs, evenly spaced and without.
    disabled: an adapter of the network that it scores without.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        *,
        checkpoints: bool = False,
        entropies: bool = False,
        disabled: Adapter | None = None,
    ) -> None:
        self.network, self.checkpoints, self.entropies = network, checkpoints, entropies
        self._sharded = is_sharded(network)
        with torch.no_grad(), gathered(network):
            self.by_head = head_explains_logits(network)
            # Two passes instead of one, and only where rows begin alike: processes would not run layers equally often.
            self.shares = self.by_head and not checkpoints and not self._sharded and network_shares(network)
        self._disabled = disabled
        self._forward_flops, self._spent = ForwardFlops(network, without_trained=disabled is not None), Cost()

    def spent(self) -> Cost:
        """Return the cost since the last call: every `score`, and a backward pass of those with gradients."""
        spent, self._spent = self._spent, Cost()
        return spent

    def score(self, actions: Actions, temperature: float) -> Scores:
        """Run the conversations once, without a cache, at a positive temperature."""
        openings = shared_openings(actions) if self.shares else None
        positions = actions.tokens_BT.numel() if openings is None else openings.positions
        predicted = int(actions.mask_BN.sum()) if self.by_head else positions
        self._spent += cost_of_pass(self._forward_flops, positions, predicted)
        with gathered(self.network), nullcontext() if self._disabled is None else self._disabled.disabled():
            if self.by_head:
                return self._by_head(actions, temperature, openings)
            return self._by_whole_rows(actions, temperature)

    def _by_head(self, actions: Actions, temperature: float, openings: Openings | None) -> Scores:
        with checkpointed_layers(self.network, self.checkpoints):
            hidden_BND, chosen_BN, final_BD = states_at_actions(self.network, actions, openings)
        mask_BN = actions.mask_BN
        hidden_MD, token_M, measured_M = hidden_BND[mask_BN], chosen_BN[mask_BN], _evenly(mask_BN)[mask_BN]
        logprob_M, entropy_M = self._score_tokens(hidden_MD, token_M, measured_M, temperature)
        blank_BN = torch.zeros(actions.mask_BN.shape, dtype=logprob_M.dtype, device=logprob_M.device)
        return Scores(
            logprob_BN=blank_BN.masked_scatter(actions.mask_BN, logprob_M),
            entropy_BN=blank_BN.masked_scatter(actions.mask_BN, entropy_M),
            hidden_BND=hidden_BND,
            final_hidden_BD=final_BD,
        )

    def _score_tokens(
        self, hidden_MD: Tensor, token_M: Tensor, measured_M: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        def part(hidden_MD: Tensor, token_M: Tensor, measured_M: Tensor) -> tuple[Tensor, Tensor]:
            logprob_MV = log_probabilities(head_logits(self.network, hidden_MD), temperature)
            return chosen(logprob_MV, token_M), self._entropies(logprob_MV, measured_M)

        size = max(1, MAX_LOGITS // self.network.config.get_text_config().vocab_size)
        if token_M.numel() <= size:
            return part(hidden_MD, token_M, measured_M)
        pairs = [
            checkpoint(part, *some, use_reentrant=False)
            for some in zip(hidden_MD.split(size), token_M.split(size), measured_M.split(size), strict=True)
        ]
        return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])

    def _entropies(self, logprob_XV: Tensor, measured_X: Tensor) -> Tensor:
        """Return entropies. measured_X: the actions that have one, if not all are asked for."""
        if self.entropies:
            return entropies(logprob_XV)
        entropy_X = torch.full_like(logprob_XV[..., 0], torch.nan, requires_grad=False)
        with torch.no_grad():
            entropy_X[measured_X] = entropies(logprob_XV[measured_X])
        return entropy_X

    def _by_whole_rows(self, actions: Actions, temperature: float) -> Scores:
        def part(row_K: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            some = actions.rows_at(row_K)
            with checkpointed_layers(self.network, self.checkpoints):  # in here, since this may be run twice itself
                output = self.network(
                    input_ids=_tokens(some),
                    attention_mask=_attention_mask(some),
                    use_cache=False,
                    output_hidden_states=True,
                )
            logits_KNV, chosen_KN, _ = _at_actions(output.logits[: some.rows], some)
            logprob_KNV = log_probabilities(logits_KNV, temperature)
            logprob_KN, entropy_KN = chosen(logprob_KNV, chosen_KN), self._entropies(logprob_KNV, measured_BN[row_K])
            hidden_KND, _, final_KD = _at_actions(output.hidden_states[-1][: some.rows], some)
            zero = torch.zeros((), dtype=logprob_KN.dtype, device=logprob_KN.device)
            logprob_KN, entropy_KN = (torch.where(some.mask_BN, x, zero) for x in (logprob_KN, entropy_KN))
            return logprob_KN, entropy_KN, hidden_KND, final_KD

        measured_BN = _evenly(actions.mask_BN)
        row_logits = actions.tokens_BT.shape[1] * self.network.config.get_text_config().vocab_size
        chunks = torch.arange(actions.rows, device=actions.mask_BN.device).split(max(1, MAX_LOGITS // row_logits))
        if len(chunks) == 1 or self._sharded:  # processes have to run layers equally often
            parts = [part(torch.cat(chunks))]
        else:
            parts = [checkpoint(part, row_K, use_reentrant=False) for row_K in chunks]
        logprob_BN, entropy_BN, hidden_BND, final_BD = (torch.cat(column) for column in zip(*parts, strict=True))
        return Scores(logprob_BN=logprob_BN, entropy_BN=entropy_BN, hidden_BND=hidden_BND, final_hidden_BD=final_BD)


def _evenly(mask_BN: Tensor) -> Tensor:
    """Return True at no more than `MOST_ENTROPIES` actions, evenly spaced; at all if there are no more."""
    order_BN = mask_BN.flatten().cumsum(0).view(mask_BN.shape) - 1
    return mask_BN & (order_BN % max(1, -(-int(mask_BN.sum()) // MOST_ENTROPIES)) == 0)


def cost_of_pass(flops: ForwardFlops, positions: int, predicted: int) -> Cost:
    """Return the cost of a forward pass, and of the backward pass where gradients are kept for one."""
    forward = flops(positions=positions, predicted=predicted)
    backward = flops.backward(positions=positions, predicted=predicted) if torch.is_grad_enabled() else 0.0
    return Cost(flops=forward + backward, backward_flops=backward)


def states_at_actions(
    network: PreTrainedModel, actions: Actions, openings: Openings | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return last hidden states before each action (B, N, D), the actions' ids (B, N), states at the end (B, D)."""
    if openings is None:
        hidden_BTD = network.base_model(
            input_ids=_tokens(actions), attention_mask=_attention_mask(actions), use_cache=False
        ).last_hidden_state[: actions.rows]
        return _at_actions(hidden_BTD, actions)
    hidden_BXD = hidden_states(network, actions.tokens_BT, actions.length_B, openings)
    return _at_actions(hidden_BXD, actions, openings.length_B - 1)


def _tokens(actions: Actions) -> Tensor:
    """Return ids for the network to read (B, T); a single one where there are no rows, so that it runs all the same."""
    return actions.tokens_BT if actions.rows else actions.tokens_BT.new_zeros(1, 1)


def _attention_mask(actions: Actions) -> Tensor | None:
    """Return 1 on real tokens; None where there is no padding."""
    width = actions.tokens_BT.shape[1]
    real_BT = torch.arange(width, device=actions.length_B.device) < actions.length_B[:, None]
    return None if bool(real_BT.all()) else real_BT.long()


def _at_actions(values_BTX: Tensor, actions: Actions, first_B: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return values at the positions that predict actions (B, N, X), the actions' ids (B, N), values at the end (B, X).

    first_B: the position of each row's first value; None: 0.
    """
    rows_B = torch.arange(actions.rows, device=actions.position_BN.device)
    before_BN, last_B = actions.position_BN - 1, actions.length_B - 1  # the state after which the action was written
    if first_B is not None:
        before_BN, last_B = before_BN - first_B[:, None], last_B - first_B
    chosen_BN = actions.tokens_BT.gather(1, actions.position_BN)
    return values_BTX[rows_B[:, None], before_BN.clamp(min=0)], chosen_BN, values_BTX[rows_B, last_B]

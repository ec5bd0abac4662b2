"""The network's view of actions: log-probabilities, entropies and last hidden states, with or without gradients.

Only positions that predict an action go through the output head, and they do so in chunks that are computed again in
the backward pass, since the logits (tokens x vocabulary) are what fills the memory of policy-gradient training.

Shapes: B rows, T tokens, N actions, M actions in a chunk, V vocabulary, D hidden size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from baselines.actions import Actions

# Logits held at once: 2**24 numbers are 64 MiB in float32.
MAX_LOGITS = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What the network says of each action; 0 where there is none."""

    logprob_BN: Tensor
    """Log-probability at the sampling temperature (float32 or wider)."""
    entropy_BN: Tensor
    """Entropy in nats of the distribution that the action was drawn from."""
    hidden_BND: Tensor
    """Last hidden state before the action was chosen: the state that a value head judges."""
    final_hidden_BD: Tensor
    """Last hidden state at the end of the conversation: the state that a truncated episode was left in."""


def score(network: PreTrainedModel, actions: Actions, temperature: float) -> Scores:
    """Run the conversations once, without a cache. temperature 0 (greedy) is scored as 1."""
    width = actions.tokens_BT.shape[1]
    real_BT = torch.arange(width, device=actions.length_B.device) < actions.length_B[:, None]
    padded = not bool(real_BT.all())
    hidden_BTD = network.base_model(
        input_ids=actions.tokens_BT, attention_mask=real_BT.long() if padded else None, use_cache=False
    ).last_hidden_state
    before_BN = (actions.position_BN - 1).clamp(min=0)  # the state after which the action was written
    rows_B1 = torch.arange(actions.rows, device=before_BN.device)[:, None]
    hidden_BND = hidden_BTD[rows_B1, before_BN]
    chosen_BN = actions.tokens_BT.gather(1, actions.position_BN)
    hidden_MD, token_M = hidden_BND[actions.mask_BN], chosen_BN[actions.mask_BN]
    logprob_M, entropy_M = _score_tokens(network, hidden_MD, token_M, temperature or 1.0)
    blank_BN = torch.zeros(actions.mask_BN.shape, dtype=logprob_M.dtype, device=logprob_M.device)
    return Scores(
        logprob_BN=blank_BN.masked_scatter(actions.mask_BN, logprob_M),
        entropy_BN=blank_BN.masked_scatter(actions.mask_BN, entropy_M),
        hidden_BND=hidden_BND,
        final_hidden_BD=hidden_BTD[rows_B1[:, 0], actions.length_B - 1],
    )


def _score_tokens(
    network: PreTrainedModel, hidden_MD: Tensor, token_M: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    config = network.config.get_text_config()
    # What some families do to the head's output; a family with another treatment fails the test against its own logits.
    softcap = getattr(config, "final_logit_softcapping", None)
    scale = getattr(config, "logit_scale", None)
    divisor = getattr(config, "logits_scaling", None)

    def part(hidden_MD: Tensor, token_M: Tensor) -> tuple[Tensor, Tensor]:
        logits_MV = network.get_output_embeddings()(hidden_MD)
        if scale is not None:
            logits_MV = logits_MV * scale
        if divisor is not None:
            logits_MV = logits_MV / divisor
        if softcap is not None:
            logits_MV = torch.tanh(logits_MV / softcap) * softcap
        wide_MV = logits_MV if logits_MV.dtype == torch.float64 else logits_MV.float()
        logprob_MV = (wide_MV / temperature).log_softmax(-1)
        entropy_M = torch.special.entr(logprob_MV.exp()).sum(-1)
        return logprob_MV.gather(1, token_M[:, None])[:, 0], entropy_M

    size = max(1, MAX_LOGITS // config.vocab_size)
    if token_M.numel() <= size:
        return part(hidden_MD, token_M)
    pairs = [
        checkpoint(part, hidden, token, use_reentrant=False)
        for hidden, token in zip(hidden_MD.split(size), token_M.split(size), strict=True)
    ]
    return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])

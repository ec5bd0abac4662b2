"""Log-probabilities from last hidden states, at some positions alone.

The steps of a family between its last hidden state and its logits (a soft cap, a scale, a transformation) are not read
from its configuration alone: `head_explains_logits` checks whether each network's own logits are what we would compute.

Shapes: B rows, T tokens, V vocabulary, D hidden size.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

# The probe's hidden states are made larger, so that a soft cap shows in a network whose logits are still small.
MAGNIFIED = 64.0


def log_probabilities(logits_V: Tensor, temperature: float) -> Tensor:
    """Return log-probabilities of all tokens, the last axis, at a positive temperature; float32 or wider."""
    wide_V = logits_V if logits_V.dtype == torch.float64 else logits_V.float()
    return (wide_V if temperature == 1.0 else wide_V / temperature).log_softmax(-1)


def chosen(logprob_V: Tensor, token: Tensor) -> Tensor:
    """Return the log-probability of each token; the distributions have one more axis, V, at the end."""
    return logprob_V.gather(-1, token[..., None])[..., 0]


def entropies(logprob_V: Tensor) -> Tensor:
    """Return entropies in nats over the last axis. Tokens of probability 0 add nothing, and nothing to the gradient."""
    probability_V = logprob_V.exp()
    # At a probability of 0 the entropy's slope is infinite.
    return -(probability_V * logprob_V.masked_fill(probability_V == 0, 0.0)).sum(-1)


def head_logits(network: PreTrainedModel, hidden_D: Tensor) -> Tensor:
    """Apply the output head and what well-known families do to its output; `head_explains_logits` says if that is all."""
    config = network.config.get_text_config()
    logits_V = network.get_output_embeddings()(hidden_D)
    scale = getattr(config, "logit_scale", None)  # Cohere
    divisor = getattr(config, "logits_scaling", None)  # Granite
    softcap = getattr(config, "final_logit_softcapping", None)  # Gemma
    if scale is not None:
        logits_V = logits_V * scale
    if divisor is not None:
        logits_V = logits_V / divisor
    if softcap is not None:
        logits_V = torch.tanh(logits_V / softcap) * softcap
    return logits_V


@torch.no_grad()
def head_explains_logits(network: PreTrainedModel) -> bool:
    """Return whether the logits are `head_logits` of the trunk's last hidden state, to the last bit."""
    trunk, head = network.base_model, network.get_output_embeddings()
    if trunk is network or head is None:
        return False
    seen: list[Tensor] = []

    def magnify(_module: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(args[0])
        return (args[0] * MAGNIFIED, *args[1:])

    # Few and small ids, so that they are in every vocabulary.
    ids_BT = torch.tensor([[1, 3, 2, 4]], device=network.device) % network.config.get_text_config().vocab_size
    hook = head.register_forward_pre_hook(magnify)
    try:
        logits_BTV = network(input_ids=ids_BT, use_cache=False).logits
    finally:
        hook.remove()
    output = trunk(input_ids=ids_BT, use_cache=False)
    if len(seen) != 1 or not isinstance(output, ModelOutput) or "last_hidden_state" not in output:
        return False
    if not torch.equal(output["last_hidden_state"], seen[0]):
        return False
    return torch.equal(head_logits(network, seen[0] * MAGNIFIED).to(logits_BTV.dtype), logits_BTV)

"""From last hidden states to log-probabilities, for whoever wants those of some positions alone.

What a family does between its last hidden state and its logits (a soft cap, a scale, a transformation) is not trusted to
its configuration: `head_explains_logits` asks each network whether its own logits are what we would compute.

Shapes: B rows, T tokens, V vocabulary, D hidden size.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

# The probe's hidden states are made larger, so that a soft cap shows in a network whose logits are still small.
MAGNIFIED = 64.0


def logprob_and_entropy(logits_V: Tensor, token: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Of tokens of any shape; the logits have one more axis, V, at the end."""
    wide_V = logits_V if logits_V.dtype == torch.float64 else logits_V.float()
    logprob_V = (wide_V / temperature).log_softmax(-1)
    return logprob_V.gather(-1, token[..., None])[..., 0], torch.special.entr(logprob_V.exp()).sum(-1)


def head_logits(network: PreTrainedModel, hidden_D: Tensor) -> Tensor:
    """The output head and what well-known families do to its output; `head_explains_logits` says if that is all."""
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
    """Whether the head reads the trunk's last hidden state and the logits are `head_logits` of it, to the last bit."""
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

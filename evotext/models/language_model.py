"""A causal language model with its tokenizer and chat format, which every algorithm tunes and the engine runs."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evotext.models.chat import ChatFormat
from evotext.models.flops import ForwardFlops


class Adapter(Protocol):
    """Weights beside a frozen network's own (`evotext.models.adapters`)."""

    def merged(self) -> PreTrainedModel:
        """Return an ordinary network of the original shape that computes the same."""

    def disabled(self) -> AbstractContextManager[None]:
        """Let the network compute without its adapter within the block, in which no gradients are taken."""


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A Hugging Face causal LM in evaluation mode (no dropout), ready to generate and to be tuned in place."""

    name: str
    """Its name in the run's summary."""
    network: PreTrainedModel
    """The transformers model; its parameters are the weights that algorithms change."""
    tokenizer: PreTrainedTokenizerBase
    """Its tokenizer; only the chat format uses it to encode."""
    chat: ChatFormat
    """Turns observations into token ids and completions into text."""
    context_length: int
    """Longest conversation in tokens."""
    adapter: "Adapter | None" = None
    """The adapter in the network, if there is one; then its weights alone have `requires_grad`."""

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.network.device

    @property
    def end_ids(self) -> frozenset[int]:
        """Token ids that end a completion."""
        return self.chat.end_ids

    @property
    def parameter_count(self) -> int:
        """Number of weights, tied ones counted once."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def trained_parameters(self) -> list[nn.Parameter]:
        """The weights that algorithms may change: all, or the adapter's."""
        return [p for p in self.network.parameters() if p.requires_grad]

    @property
    def matmul_parameter_count(self) -> int:
        """Weights that a position is multiplied with: all matrices but embeddings, and the output head even if tied."""
        flops = ForwardFlops(self.network)
        return flops.trunk + flops.head

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), configuration and tokenizer, loadable with `AutoModelForCausalLM.from_pretrained`."""
        network = self.network if self.adapter is None else self.adapter.merged()
        network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

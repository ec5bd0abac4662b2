"""A causal language model with its tokenizer and chat format, which every algorithm tunes and the engine runs."""

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evotext.distributed.parts import Parts
from evotext.distributed.sharding import RolloutWeights, Sharding, shard
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
    sharding: Sharding | None = None
    """The division of the network over processes; None: each has all of it."""
    parts: Parts = field(default_factory=Parts)
    """The parts of its weights that this process holds, where several hold it together (`evotext.models.tensor_parallel`)."""

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

    def sharded(self, device: torch.device, rollout_weights: RolloutWeights) -> "LanguageModel":
        """Return the model with its network divided over all processes, in place, each one's share on its device."""
        return replace(self, sharding=shard(self.network, self.adapter, device, rollout_weights))

    def whole(self) -> "LanguageModel":
        """Return the model with all of its weights, in process 0 alone if they are divided; every process calls it."""
        if self.sharding is None:
            return self
        network, adapter = self.sharding.whole()
        return replace(self, network=network, adapter=adapter, sharding=None)

    def acting(self) -> AbstractContextManager[None]:
        """Let each process run the network within the block as often as it likes, without gradients."""
        return nullcontext() if self.sharding is None else self.sharding.acting()

    def copied(self, *, trunk: bool = False, frozen: bool = False) -> PreTrainedModel:
        """Return a copy of the network, or of its trunk, divided as it is. frozen: no weight has `requires_grad`."""
        if self.sharding is not None:
            return self.sharding.copied(trunk=trunk, frozen=frozen)
        copied: PreTrainedModel = copy.deepcopy(self.network.base_model if trunk else self.network)
        return copied.requires_grad_(False) if frozen else copied

    def whole_weights(self) -> dict[str, Tensor]:
        """Return the parameters by name: in process 0 whole ones, elsewhere this process's parts (`Parts.whole`).

        All processes that hold the model together call it.
        """
        return {name: self.parts.whole(name, p) for name, p in self.network.named_parameters()}

    def save(self, folder: Path, whole: Mapping[str, Tensor] | None = None) -> None:
        """Write weights (safetensors), configuration and tokenizer, loadable with `AutoModelForCausalLM.from_pretrained`.

        whole: `whole_weights`, which a model that several processes hold together needs.
        """
        network = self.network if self.adapter is None else self.adapter.merged()
        weights: dict[str, Tensor] | None = None
        if whole is not None and self.parts.divided:
            name_of = {id(parameter): name for name, parameter in network.named_parameters()}
            stored = network.state_dict(keep_vars=True).items()
            weights = {key: whole[name_of[id(value)]] if id(value) in name_of else value for key, value in stored}
        network.save_pretrained(folder, state_dict=weights)
        self.tokenizer.save_pretrained(folder)

"""A model that the caller has loaded already: a transformers model object and its tokenizer."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evotext.models.chat import ChatFormat
from evotext.models.huggingface import context_length, end_ids
from evotext.models.language_model import LanguageModel
from evotext.models.source import Outline
from evotext.models.trial_run import check_runs


class GivenModel:
    """The `ModelSource` of a network in memory. It is tuned in place, in evaluation mode and in the dtype that it has."""

    def __init__(self, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._network, self._tokenizer = network, tokenizer

    @property
    def name(self) -> str:
        """Where the model was loaded from, or its class."""
        return str(self._network.config.name_or_path) or type(self._network).__name__

    def outline(self) -> Outline:
        """See `ModelSource`. Raise ValueError if the engine cannot run it."""
        config, generation = self._network.config, self._network.generation_config
        ends = end_ids(config, self._tokenizer, generation.eos_token_id if generation else None)
        return Outline(chat=ChatFormat(self._tokenizer, ends), context_length=context_length(config))

    def load(self, device: torch.device) -> LanguageModel:
        """Move it to the device. Raise ValueError if the engine cannot run it."""
        network = self._network.to(device).eval()
        check_runs(network)
        outline = self.outline()
        return LanguageModel(
            name=self.name,
            network=network,
            tokenizer=self._tokenizer,
            chat=outline.chat,
            context_length=outline.context_length,
        )

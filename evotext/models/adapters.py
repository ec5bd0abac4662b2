"""Adapters: all weights of a model are tuned, or only those of a small addition.

LoRA leaves the model's weights as they are, gives each linear layer a low-rank addition and tunes that.
Paper: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685.

    y = W x + (alpha / r) B A x,   A (r, I) random, B (O, r) zero at first

peft makes the layers (an optional dependency). Any algorithm tunes them: what is frozen has `requires_grad` False, which
evolution strategies leave unperturbed and optimizers leave out. The saved model has the additions merged in.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from evotext.library import optional
from evotext.models.language_model import LanguageModel
from evotext.validation import NonNegativeInt, PositiveInt, checked_record


class NoAdapter:
    """Every weight is tuned."""

    def attach(self, model: LanguageModel) -> LanguageModel:
        """Return the model itself."""
        return model


@checked_record
class LoRA:
    """rank: r. alpha: scale of the addition, times 1/r. targets: names of the linear layers, or `all-linear`: all but the head.

    seed: draws A. Raises ImportError if peft is not installed.
    """

    rank: PositiveInt
    alpha: PositiveInt
    targets: str | list[str]
    seed: NonNegativeInt

    def __post_init__(self) -> None:
        optional("peft", "lora")

    def attach(self, model: LanguageModel) -> LanguageModel:
        """Return the model with adapters in place; its other weights no longer train. Raise ValueError for unknown targets."""
        peft = optional("peft", "lora")
        config = peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=self.targets,
            lora_dropout=0.0,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.network.modules()),
        )
        with torch.random.fork_rng(devices=[]):  # peft draws from the global generator
            torch.manual_seed(self.seed)
            try:
                tuner = peft.LoraModel(model.network, config, "default")
            except ValueError as error:
                raise ValueError(f"targets: {error}") from error
        model.network.eval()  # the new layers, too
        return replace(model, adapter=_Attached(tuner))


@dataclass(frozen=True)
class _Attached:
    """peft's tuner, which holds the network whose layers it replaced."""

    tuner: Any

    def merged(self) -> PreTrainedModel:
        """Return a copy of the network in its original shape, with the additions in its weights."""
        merged: PreTrainedModel = copy.deepcopy(self.tuner).merge_and_unload()
        return merged

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Let the network compute without the additions within the block."""
        self.tuner.disable_adapter_layers()
        try:
            yield
        finally:
            self.tuner.enable_adapter_layers()

"""Sources of models, which `conf/model/*.yaml` instantiates."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from transformers import PreTrainedConfig

from evotext.models.chat import ChatFormat
from evotext.models.language_model import LanguageModel

Parallel = Literal["tensor", "fsdp"] | None
"""The way in which a model is divided over the processes of a run; None: each has all of it."""


def loading_device(parallel: str | None, device: torch.device) -> torch.device:
    """Return where weights are loaded: the CPU's memory if they are to be divided afterwards."""
    return torch.device("cpu") if parallel == "fsdp" else device


@dataclass(frozen=True, kw_only=True)
class Outline:
    """All that is known about a model before its weights are loaded or trained."""

    chat: ChatFormat
    """Its chat format."""
    context_length: int
    """Longest conversation in tokens."""
    config: PreTrainedConfig | None = None
    """The network's configuration, from which `evotext plan` forecasts; None: no forecast is made."""


class ModelSource(Protocol):
    """Gives the model of a run. Anything with these two methods can stand in `conf/model/`."""

    def outline(self) -> Outline:
        """Return what lets a run refuse a model before it costs anything. Raise ValueError for an unusable model."""

    def load(self, device: torch.device) -> LanguageModel:
        """Return the model, ready to generate."""

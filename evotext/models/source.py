"""Where a model comes from: what `conf/model/*.yaml` instantiates."""

from dataclasses import dataclass
from typing import Protocol

import torch

from evotext.models.chat import ChatFormat
from evotext.models.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What can be known of a model before its weights are loaded or trained."""

    chat: ChatFormat
    """Its chat format."""
    context_length: int
    """Longest conversation in tokens."""


class ModelSource(Protocol):
    """Gives the model of a run. Anything with these two methods can stand in `conf/model/`."""

    def outline(self) -> Outline:
        """Cheap: lets a run refuse what cannot work before it costs anything. Raises ValueError for an unusable model."""

    def load(self, device: torch.device) -> LanguageModel:
        """The model, ready to generate."""

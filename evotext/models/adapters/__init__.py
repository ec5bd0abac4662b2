"""Adapters: all weights of a model are tuned, or only those of a small addition."""

from evotext.models.adapters.lora import LoRA
from evotext.models.adapters.none import NoAdapter

__all__ = ["LoRA", "NoAdapter"]

"""Which weights of a model are tuned: all of them, or those of a small adapter beside them."""

from evotext.models.adapters.lora import LoRA
from evotext.models.adapters.none import NoAdapter

__all__ = ["LoRA", "NoAdapter"]

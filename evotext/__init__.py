"""Tune language models on text tasks with sparse, delayed rewards, by Evolution Strategies and by RL, and compare them."""

from typing import TYPE_CHECKING, Any

from evotext import folders

if TYPE_CHECKING:
    from evotext.api.tune import tune as tune

__version__ = "0.1.0"

folders.find()


def __getattr__(name: str) -> Any:
    """Import `tune` when it is asked for: it brings in torch and transformers, which nothing else here does."""
    if name != "tune":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from evotext.api.tune import tune

    return tune

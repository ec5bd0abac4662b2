"""The extension points. A class that has these methods plugs in; nothing is to be inherited from.

The noise of a population, a perturbation among it, has a file of its own: `evotext/noise.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from evotext.models.language_model import LanguageModel
from evotext.types import RolloutPlan, Trajectories, UpdateReport


class Algorithm(Protocol):
    """Hyperparameters of an algorithm: checked when they are made, frozen from then on. It has no other state."""

    def start(self, model: LanguageModel, seed: int) -> "Learner":
        """Return what tunes this model (in place) with this seed, ready to be asked.

        Raise ValueError for a model that it cannot tune.
        """


class Learner(Protocol):
    """Decides which episodes to run and turns their returns into new weights."""

    def ask(self, generation: int) -> RolloutPlan:
        """Return the episodes of this generation (counted from 0): a function of seed, generation and what was learned."""

    def tell(self, batch: Trajectories) -> UpdateReport:
        """Update the weights from the episodes of a plan, which the batch holds (`batch.plan`, its noise included)."""

    def state_dict(self) -> dict[str, object]:
        """Return all state besides the weights, as tensors, numbers, strings and containers of them."""

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Undo `state_dict`."""


class Tracker(Protocol):
    """The sink of metrics while a run goes on."""

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """Log a generation or an evaluation; `generation`, `episodes`, `generated_tokens`, `seconds` are always there."""

    def log_transcripts(self, generation: int, texts: Sequence[str]) -> None:
        """Log a few sample episodes as readable text."""

    def close(self) -> None:
        """Write out everything; nothing is logged afterwards."""

"""The extension points. A class that has these methods plugs in, whatever it is derived from.

The noise of a population, a perturbation among it, has a file of its own: `evotext/noise.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, SupportsFloat, runtime_checkable

from evotext.models.language_model import LanguageModel
from evotext.run_folder.schema import TrainingEpisode
from evotext.types import RolloutPlan, Trajectories, UpdateReport


@runtime_checkable
class Algorithm(Protocol):
    """Hyperparameters of an algorithm: checked when they are made, frozen from then on. It has no other state."""

    def start(self, model: LanguageModel, seed: int) -> "Learner":
        """Return what tunes this model (in place) with this seed, ready to be asked.

        Raise ValueError for a model that it cannot tune.
        """


@runtime_checkable
class Shardable(Protocol):
    """An algorithm that can tune a model whose weights are divided over processes (`evotext.distributed.sharding`)."""

    shardable: Literal[True]


@runtime_checkable
class TunesParts(Protocol):
    """An algorithm that can tune a model of which each process holds a part (`model.parallel=tensor`). It need not be one."""

    def check_parts(self) -> None:
        """Raise ValueError for hyperparameters under which it cannot."""


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


@runtime_checkable
class FollowsBudget(Protocol):
    """A learner with schedules by the share of the budget that is spent. It need not be one."""

    def follow(self, spent: float) -> None:
        """Take note of the share that is spent. Called before each `ask`, whose `tell` comes before the next call."""


class Tracker(Protocol):
    """The sink of metrics while a run goes on. A class that is derived from it may leave methods out, which then do nothing."""

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """Log a generation or an evaluation; `generation`, `episodes`, `generated_tokens`, `seconds` are always there."""
        return

    def log_transcripts(self, generation: int, texts: Sequence[str]) -> None:
        """Log a few sample episodes of a measurement as readable text."""
        return

    def log_training_episodes(self, episodes: Sequence[TrainingEpisode]) -> None:
        """Log a few training episodes of one generation."""
        return

    def close(self) -> None:
        """Write out everything; nothing is logged afterwards."""
        return


@runtime_checkable
class ScoresInBatches(Protocol):
    """An environment that pays for many episodes by one call: a judge model, a compiler farm. It need not be one."""

    @staticmethod
    def score_batch(environments: Sequence[Any]) -> Sequence[SupportsFloat]:
        """Return what to pay each environment besides what its `step` has just paid, in their order.

        Called once a turn with the environments (unwrapped) that have just answered a step without a fault, those whose
        episode has ended by it among them. A reward must not depend on who else is in the batch.
        """

"""The run state: all that the loop knows, to and from JSON. Weights and the algorithm's state are kept elsewhere."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from evotext.runner.budget import LATEST, Taken
from evotext.runner.evaluation import Evaluation
from evotext.types import Cost


@dataclass(kw_only=True)
class RunState:
    """The state of a run, which changes as the run goes on."""

    generation: int = 0
    """Generations finished."""
    cost: Cost = field(default_factory=Cost)
    """The cost of training."""
    evaluation_cost: Cost = field(default_factory=Cost)
    """The cost of measurements, which no budget is charged for."""
    first: Evaluation | None = None
    """The measurement before training."""
    last: Evaluation | None = None
    """The latest measurement."""
    best: Evaluation | None = None
    """The measurement with the greatest score, then mean return; the earliest if there are several."""
    best_generation: int = 0
    """The generation of the best measurement."""
    scores: list[float] = field(default_factory=list)
    """The scores of all measurements in their order, the one before training first."""
    saved_generation: int | None = None
    """The generation whose weights are in `model/`."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Generations by what became of the weights, values of `Outcome`."""
    faults: Counter[str] = field(default_factory=Counter)
    """Training episodes that a fault of the environment ended, by kind."""
    evaluation_faults: Counter[str] = field(default_factory=Counter)
    """The same of measured episodes."""
    latest: list[Taken] = field(default_factory=list)
    """The latest generations' shares of the budget, in its unit."""
    full: float = 0.0
    """A limit of the budget up to which there is no room for another generation."""
    notes: list[str] = field(default_factory=list)
    """Lines that the user was told on the way and that bear on the result."""
    idle_in_a_row: int = 0
    """The latest generations without an update, since one that made some."""
    dropped: int = 0
    """Generations that were dropped for weights that are not finite."""
    dropped_in_a_row: int = 0
    """The latest of them, since one that was not."""
    resumes: int = 0
    """The number of times that the run was resumed."""
    peak_memory_bytes: int = 0
    """The peak of the processes that ran it before."""

    @property
    def all_faults(self) -> Counter[str]:
        """Faults of training and of measurements."""
        return self.faults + self.evaluation_faults

    @property
    def fault_share(self) -> float:
        """Share of all episodes so far that a fault of the environment ended."""
        return self.all_faults.total() / max(1, self.cost.episodes + self.evaluation_cost.episodes)

    @property
    def nothing_but_faults(self) -> bool:
        """Whether no training episode has ended otherwise."""
        return 0 < self.cost.episodes == self.faults.total()

    @property
    def saved_another(self) -> bool:
        """Whether `model/` holds the weights of an earlier generation than the last."""
        return self.saved_generation not in (None, self.generation)

    def measured(self, evaluation: Evaluation) -> None:
        """Take in a measurement of the present weights."""
        self.evaluation_cost += evaluation.cost
        self.evaluation_faults += evaluation.faults
        self.first = self.first or evaluation
        self.last = evaluation
        self.scores.append(evaluation.score[1])
        if self.best is None or _rank(evaluation) > _rank(self.best):
            self.best, self.best_generation = evaluation, self.generation

    def took(self, taken: Taken) -> None:
        """Take in what a generation took."""
        self.latest = [*self.latest, taken][-LATEST:]

    def to_json(self) -> dict[str, Any]:
        """Return the record for a checkpoint."""
        record: dict[str, Any] = _JSON.dump_python(self)
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "RunState":
        """Undo `to_json`; what older checkpoints do not have is as at the start. Raise ValueError for another record."""
        return _JSON.validate_python(record)


_JSON = TypeAdapter(RunState)


def _rank(evaluation: Evaluation) -> tuple[float, float]:
    return evaluation.score[1], evaluation.mean_return

"""Where a run stands: all that its loop knows, to and from JSON. Weights and the algorithm's state are kept elsewhere."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from evotext.runner.evaluation import Evaluation
from evotext.types import Cost

_MEASURED = tuple(f.name for f in fields(Evaluation) if f.name not in ("trajectories", "cost", "pass_at"))
_EVALUATIONS, _COSTS = ("first", "last", "best"), ("cost", "evaluation_cost")


@dataclass(kw_only=True)
class Standing:
    """Changes as the run goes on."""

    generation: int = 0
    """Generations finished."""
    cost: Cost = field(default_factory=Cost)
    """What training took."""
    evaluation_cost: Cost = field(default_factory=Cost)
    """What measuring took, which no budget is charged for."""
    first: Evaluation | None = None
    """The measurement before training."""
    last: Evaluation | None = None
    """The latest measurement."""
    best: Evaluation | None = None
    """That with the greatest mean return; of several the earliest."""
    best_generation: int = 0
    """When it was made."""
    without_signal: int = 0
    """Generations that the algorithm reported as `skipped`."""
    idle_in_a_row: int = 0
    """The latest generations without an update, since one that made some."""
    dropped: int = 0
    """Generations that were dropped for figures that are not finite."""
    dropped_in_a_row: int = 0
    """The latest of them, since one that was not."""
    resumes: int = 0
    """How often the run was taken up again."""
    peak_memory_bytes: int = 0
    """The peak of the processes that ran it before."""

    def measured(self, evaluation: Evaluation) -> None:
        """Take in a measurement of the present weights."""
        self.evaluation_cost += evaluation.cost
        self.first = self.first or evaluation
        self.last = evaluation
        if self.best is None or evaluation.mean_return > self.best.mean_return:
            self.best, self.best_generation = evaluation, self.generation

    def to_json(self) -> dict[str, Any]:
        """For a checkpoint; the episodes of measurements are left out."""
        record: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        record |= {name: record[name] and _evaluation_to_json(record[name]) for name in _EVALUATIONS}
        return record | {name: asdict(record[name]) for name in _COSTS}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Standing":
        """Undo `to_json`. Raises TypeError for a record of something else."""
        read: dict[str, Any] = {name: record[name] and _evaluation_from_json(record[name]) for name in _EVALUATIONS}
        return cls(**record | read | {name: Cost(**record[name]) for name in _COSTS})


def _evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    plain = {name: getattr(evaluation, name) for name in _MEASURED}
    return plain | {"cost": asdict(evaluation.cost), "pass_at": list(evaluation.pass_at.items())}


def _evaluation_from_json(record: dict[str, Any]) -> Evaluation:
    return Evaluation(**record | {"cost": Cost(**record["cost"]), "pass_at": dict(record["pass_at"])})

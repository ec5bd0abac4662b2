"""What the report knows of a run: frozen records, with NaN or an empty string where a run's files do not say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

NAN = float("nan")

Status = Literal["completed", "interrupted", "pruned", "failed", "unfinished"]
Axis = Literal["episodes", "generated_tokens", "seconds", "flops"]
Metric = Literal["success", "return"]

AXES: Mapping[Axis, str] = {
    "episodes": "Episodes",
    "generated_tokens": "Generated tokens",
    "seconds": "Seconds of training",
    "flops": "Floating-point operations",
}
"""What a curve can be drawn against, with its title. All count training only."""

COSTS = (
    "episodes",
    "env_steps",
    "generated_tokens",
    "updates",
    "seconds",
    "rollout_seconds",
    "env_seconds",
    "update_seconds",
    "flops",
    "backward_flops",
    "peak_memory_bytes",
)
"""The totals of training in `summary.json`, under `cost`."""

EVALUATION = "evaluation_"
EVALUATION_COSTS = tuple(EVALUATION + name for name in ("episodes", "generated_tokens", "seconds", "flops"))
"""Those of its measurements, under `evaluation_cost` without the prefix."""


@dataclass(frozen=True, kw_only=True)
class EvaluationPoint:
    """One evaluation on held-out instances, and what training had cost by then."""

    generation: int
    """Counts from 0, which is before training."""
    cost: Mapping[Axis, float]
    """Training cost so far on every axis; NaN where the line does not say."""
    score: Mapping[Metric, float]
    """What was measured; NaN where the line does not say."""


@dataclass(frozen=True, kw_only=True)
class EpisodeSample:
    """A few episodes as text, from one evaluation."""

    generation: int
    texts: tuple[str, ...]


ON_VALIDATION = " on validation instances"
"""How a record's decoding ends where validation instances were measured and not the held-out ones."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run's folder, read as far as it can be read."""

    folder: Path
    algorithm: str = ""
    env: str = ""
    model: str = ""
    seed: int | None = None
    status: Status = "unfinished"
    """`unfinished` means that there is no readable summary: the run goes on, or was killed."""
    reason: str = ""
    """Why it failed, was interrupted or pruned."""
    budget_unit: str = ""
    budget_limit: float = NAN
    budget_spent: float = NAN
    before: Mapping[Metric, float] = field(default_factory=dict)
    """Scores before training."""
    after: Mapping[Metric, float] = field(default_factory=dict)
    """Scores when the budget was spent (`reports.at_budget`)."""
    compared_at: float = NAN
    """What had been spent then: the budget's limit, or all that was, where that cannot be said."""
    passes_before: Mapping[int, float] = field(default_factory=dict)
    """pass@k of sampled answers before training, by k."""
    passes_after: Mapping[int, float] = field(default_factory=dict)
    """The same at the end."""
    eval_episodes: float = NAN
    decoding: str = ""
    cost: Mapping[str, float] = field(default_factory=dict)
    """Totals, by the names of `COSTS` and `EVALUATION_COSTS`."""
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    phase: str = ""
    """`tuning` for a trial that chose hyperparameters; such runs are in no task."""
    progress: float = NAN
    """Share of the budget that was spent by the last line that was logged."""
    overrides: tuple[str, ...] = ()
    """The words on the command line that made the run."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The configuration's leaves, by dotted key."""
    points: tuple[EvaluationPoint, ...] = ()
    """Evaluations in order of generation."""
    samples: tuple[EpisodeSample, ...] = ()
    problems: tuple[str, ...] = ()
    """What was wrong with the files, in words."""

    @property
    def validated(self) -> bool:
        """Whether its scores are those of validation instances."""
        return self.decoding.endswith(ON_VALIDATION)

    def settings_of(self, group: str) -> dict[str, str]:
        """The leaves below a config group, without the group's name."""
        return {key[len(group) + 1 :]: value for key, value in self.settings.items() if key.startswith(group + ".")}

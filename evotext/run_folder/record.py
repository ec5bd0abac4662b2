"""A run as read from its folder: frozen records, with NaN or an empty string where the files do not say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evotext.run_folder.cost import Axis
from evotext.run_folder.retention import Retention
from evotext.run_folder.schema import EvaluationSplit, Phase, Status

NAN = float("nan")

Metric = Literal["success", "return"]


@dataclass(frozen=True, kw_only=True)
class EvaluationPoint:
    """One measurement, and the cost of training until then."""

    generation: int
    """Counts from 0, which is before training."""
    cost: Mapping[Axis, float]
    """Training cost so far on every axis; NaN where the line does not say."""
    score: Mapping[Metric, float]
    """Scores by metric; NaN where the line does not say."""
    spent: float = NAN
    """Share of the budget; NaN where the line, of an older version, does not say."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Means of the named parts of the reward; empty where they have no names."""


@dataclass(frozen=True, kw_only=True)
class EpisodeSample:
    """A few episodes as text, from one evaluation."""

    generation: int
    texts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run's folder, read as far as it can be read."""

    folder: Path
    algorithm: str = ""
    env: str = ""
    model: str = ""
    seed: int | None = None
    phase: Phase = "reporting"
    draw: int = 0
    """Which of several searches has chosen its hyperparameters, or it is a trial of."""
    status: Status | Literal["unfinished"] = "unfinished"
    """`unfinished` means that there is no readable summary: the run goes on, or was killed."""
    reason: str = ""
    """Why it ended before its budget was spent: it failed, was interrupted, pruned or stopped early."""
    budget_unit: str = ""
    budget_limit: float = NAN
    budget_spent: float = NAN
    before: Mapping[Metric, float] = field(default_factory=dict)
    """Scores before training."""
    after: Mapping[Metric, float] = field(default_factory=dict)
    """Scores when the budget was spent (`evotext.run_folder.at_budget`)."""
    best: Mapping[Metric, float] = field(default_factory=dict)
    """Scores of the best measurement."""
    best_generation: int | None = None
    saved_generation: int | None = None
    """The generation whose weights are in `model/`; None where the run does not say."""
    compared_at: float = NAN
    """The amount spent then: the budget's limit, or everything where that is not known."""
    passes_before: Mapping[int, float] = field(default_factory=dict)
    """pass@k of sampled answers before training, by k."""
    passes_after: Mapping[int, float] = field(default_factory=dict)
    """The same at the end."""
    by_task_before: Mapping[str, Mapping[Metric, float]] = field(default_factory=dict)
    """Scores before training on each task of a mixture, and on further tasks that were measured, by their names."""
    by_task_after: Mapping[str, Mapping[Metric, float]] = field(default_factory=dict)
    """The same at the end."""
    eval_episodes: float = NAN
    decoding: str = ""
    split: EvaluationSplit | Literal[""] = ""
    """The instances behind its scores."""
    cost: Mapping[str, float] = field(default_factory=dict)
    """Totals, by the names of `COSTS` and `EVALUATION_COSTS`."""
    faults: Mapping[str, int] = field(default_factory=dict)
    """Training episodes that a fault of the environment ended, by kind."""
    evaluation_faults: Mapping[str, int] = field(default_factory=dict)
    """The same of measured episodes."""
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    progress: float = NAN
    """Share of the budget that was spent by the last line that was logged."""
    seconds: float = NAN
    """Training until then."""
    overrides: tuple[str, ...] = ()
    """The words on the command line that made the run."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The configuration's leaves, by dotted key."""
    points: tuple[EvaluationPoint, ...] = ()
    """Evaluations in order of generation."""
    samples: tuple[EpisodeSample, ...] = ()
    retention: Retention | None = None
    """Its effect on other tasks, if that was measured."""
    problems: tuple[str, ...] = ()
    """Everything wrong with the files, in words."""

    def settings_of(self, group: str) -> dict[str, str]:
        """Return the leaves below a config group, without the group's name."""
        return {key[len(group) + 1 :]: value for key, value in self.settings.items() if key.startswith(group + ".")}

"""The tuning of hyperparameters: the trials of each algorithm on each task, with their scores and costs.

A trial is a run whose record says `phase: tuning`. It is measured on instances that no reported run is measured on, so its
score stands beside no reported score.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evotext.run_folder.record import NAN, Metric, RunRecord


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial."""

    run: RunRecord
    values: Mapping[str, str]
    """The hyperparameters in which the trials differ."""
    score: float
    """NaN if it did not complete."""
    reported: bool
    """Whether a reported run has these values."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The trials of one algorithm on one environment: one search."""

    algorithm: str
    env: str
    search: int
    """Counts from 1."""
    trials: tuple[Trial, ...]
    """Best first, those without a score last."""
    cost: Mapping[str, float]
    """Their total cost; NaN where none says."""

    @property
    def title(self) -> str:
        """The algorithm, the task that it was tuned on, and the search if it is not the first."""
        return f"{self.algorithm} on {self.env}" + (f", search {self.search}" if self.search > 1 else "")


def is_trial(run: RunRecord) -> bool:
    """Return whether this run chose hyperparameters, rather than being one of those that are compared."""
    return run.phase == "tuning"


def tunings_of(trials: Sequence[RunRecord], reported: Sequence[RunRecord], metric: Metric) -> tuple[Tuning, ...]:
    """Return one record an algorithm, environment and search, in their order of name."""
    groups: defaultdict[tuple[str, str, int], list[RunRecord]] = defaultdict(list)
    for run in trials:
        groups[run.env, run.algorithm, run.draw].append(run)
    return tuple(
        Tuning(
            algorithm=algorithm,
            env=env,
            search=draw + 1,
            trials=_trials(runs, [r for r in reported if (r.env, r.algorithm) == (env, algorithm)], metric),
            cost={key: _total([run.cost.get(key, NAN) for run in runs]) for key in runs[0].cost},
        )
        for (env, algorithm, draw), runs in sorted(groups.items())
    )


def _trials(runs: Sequence[RunRecord], reported: Sequence[RunRecord], metric: Metric) -> tuple[Trial, ...]:
    settings = [run.settings_of("algorithm") for run in runs]
    tried = [
        key
        for key in dict.fromkeys(key for each in settings for key in each)
        if len({each.get(key) for each in settings}) > 1
    ]
    used = [tuple(run.settings_of("algorithm").get(key) for key in tried) for run in reported]
    found = [
        Trial(
            run=run,
            values={key: each.get(key, "absent") for key in tried},
            score=run.after.get(metric, NAN) if run.status == "completed" else NAN,
            reported=tuple(each.get(key) for key in tried) in used,
        )
        for run, each in zip(runs, settings, strict=True)
    ]
    return tuple(sorted(found, key=lambda trial: -trial.score if math.isfinite(trial.score) else math.inf))


def _total(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return math.fsum(known) if known else NAN

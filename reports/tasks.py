"""One task: its contestants, their scores and costs, and the evidence that one is better than another.

A task is an environment with its options and a model; a contestant is an algorithm with its hyperparameters.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evotext.run_folder.cost import COSTS, EVALUATION_COSTS, Axis
from evotext.run_folder.record import NAN, Metric, RunRecord
from evotext.run_folder.schema import INSTANCES

from .axes import AXES
from .curves import Band, band_of, curve_of
from .searches import Searched, by_search, estimate_of, improvement_of, p_value_of
from .statistics import (
    FEWEST_RUNS,
    Estimate,
    estimate,
)

SIGNIFICANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class Search:
    """The setting that one search of hyperparameters has chosen, and its runs."""

    setting: str
    """The words that set hyperparameters; empty for those as shipped."""
    after: Estimate | None
    """Held-out score at the end."""
    runs: int


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One algorithm on one task."""

    name: str
    counted: tuple[RunRecord, ...]
    """Completed runs with a final score, one a seed and search: the figures are theirs."""
    others: tuple[RunRecord, ...]
    """Runs that are not counted."""
    before: Estimate | None
    """Held-out score before training."""
    after: Estimate | None
    """Held-out score at the end; None without counted runs."""
    passes: Mapping[int, tuple[Estimate | None, Estimate | None]]
    """pass@k of sampled answers before training and at the end, by k, over the counted runs that say."""
    by_task: Mapping[str, tuple[Estimate | None, Estimate | None]]
    """Score on each task of a mixture, and on further tasks that were measured, likewise."""
    cost: Mapping[str, float]
    """Mean totals of the counted runs; NaN where none says."""
    bands: Mapping[Axis, Band]
    """Learning curves of the counted runs; an axis is absent where they have no curve."""
    searches: tuple[Search, ...]
    """The searches that have chosen other settings (`reports.searches`); one where there was a single search, or none."""

    @property
    def seeds(self) -> int:
        """Counted runs of each search: of the one with the fewest."""
        return min((search.runs for search in self.searches), default=0)


@dataclass(frozen=True, kw_only=True)
class Duel:
    """Two contestants of one task; the first has the higher score."""

    first: str
    second: str
    improvement: Estimate
    """Probability that a run of the first scores above a run of the second."""
    p_value: float
    """The p value of the permutation test, adjusted for the number of duels on the whole page (`reports.comparison`)."""
    apart: bool
    """Whether the intervals of the two scores do not overlap."""

    @property
    def clear(self) -> bool:
        """Whether the difference supports a claim: intervals apart and a small adjusted p value."""
        return self.apart and self.p_value < SIGNIFICANCE


@dataclass(frozen=True, kw_only=True)
class Task:
    """All runs on one environment and model."""

    name: str
    env: str
    """The environment's name without options."""
    settings: Mapping[str, str]
    """The options of the environment and of the model; empty where no run says."""
    contestants: tuple[Contestant, ...]
    duels: tuple[Duel, ...]
    unfair: tuple[str, ...]
    """Why these runs cannot be compared; a claim is made only if there is no such reason."""
    notes: tuple[str, ...]
    """Other notes for the reader."""

    @property
    def instances(self) -> str:
        """The instances that were measured: `held-out`, `validation`, or both in turn."""
        runs = [run for contestant in self.contestants for run in (*contestant.counted, *contestant.others)]
        return kind_of_instances(runs)


def kind_of_instances(runs: Sequence[RunRecord]) -> str:
    """Return `held-out`, `validation`, or `held-out and validation`; held-out where no run says."""
    kinds = sorted({INSTANCES[run.split] for run in runs if run.split})
    return " and ".join(kinds) or INSTANCES["test"]


def fewest_for_a_claim(pairs: int) -> int:
    """Return the seeds of each below which no pair on one task can be significant, on a page of so many pairs.

    With n runs a side that do not overlap, 2 of the C(2n, n) splits are as far apart; Holm multiplies by the number of pairs.
    """
    enough = (n for n in itertools.count(FEWEST_RUNS) if pairs * 2 / math.comb(2 * n, n) < SIGNIFICANCE)
    return next(enough)


def contestant_of(name: str, runs: Sequence[RunRecord], metric: Metric, seed: int, notes: list[str]) -> Contestant:
    """Sort one contestant's runs and aggregate them. notes: what a reader should know is added to it."""
    counted: dict[object, RunRecord] = {}
    others = []
    for run in runs:
        if run.status != "completed" or not np.isfinite(run.after.get(metric, NAN)):
            others.append(run)
            continue
        key = (run.draw, run.seed) if run.seed is not None else run.folder
        if key in counted:
            notes.append(f"{name} has more than one completed run of seed {run.seed}: the last one found counts")
            others.append(counted.pop(key))
        counted[key] = run
    chosen = tuple(sorted(counted.values(), key=lambda run: (run.draw, run.seed is None, run.seed or 0)))
    bands = {}
    for axis in AXES:
        curves = [curve for run in chosen if (curve := curve_of(run, axis, metric)) is not None]
        if curves:
            bands[axis] = band_of(curves, seed=seed)
        if axis == "episodes" and len(curves) < len(chosen):
            notes.append(f"the curves of {name} rest on {len(curves)} of its {len(chosen)} completed runs")
    return Contestant(
        name=name,
        counted=chosen,
        others=tuple(others),
        before=_estimate([run.before.get(metric, NAN) for run in chosen], seed),
        after=estimate_of({"": by_search(chosen, [run.after[metric] for run in chosen])}, seed=seed)
        if chosen
        else None,
        passes={k: (_pass_at(k, chosen, "before", seed), _pass_at(k, chosen, "after", seed)) for k in _ks(chosen)},
        by_task={
            name: (
                _estimate([run.by_task_before.get(name, {}).get(metric, NAN) for run in chosen], seed),
                _estimate([run.by_task_after.get(name, {}).get(metric, NAN) for run in chosen], seed),
            )
            for name in dict.fromkeys(name for run in chosen for name in run.by_task_after)
        },
        cost={key: _mean([run.cost.get(key, NAN) for run in chosen]) for key in (*COSTS, *EVALUATION_COSTS)},
        bands=bands,
        searches=_searches(chosen, metric, seed),
    )


def _searches(runs: Sequence[RunRecord], metric: Metric, seed: int) -> tuple[Search, ...]:
    found = []
    for draw in sorted({run.draw for run in runs}):
        own = [run for run in runs if run.draw == draw]
        words = [word.removeprefix("algorithm.") for word in own[0].overrides if word.startswith("algorithm.")]
        after = _estimate([run.after[metric] for run in own], seed)
        found.append(Search(setting=", ".join(words), after=after, runs=len(own)))
    return tuple(found)


def _estimate(scores: list[float], seed: int) -> Estimate | None:
    return estimate({"": scores}, seed=seed) if scores and np.isfinite(scores).all() else None


def _ks(runs: Sequence[RunRecord]) -> list[int]:
    """Return every k for which some run reports pass@k."""
    return sorted({k for run in runs for k in (*run.passes_before, *run.passes_after)})


def _pass_at(k: int, runs: Sequence[RunRecord], when: str, seed: int) -> Estimate | None:
    found = [(run.passes_before if when == "before" else run.passes_after).get(k, NAN) for run in runs]
    return _estimate(found, seed)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else NAN


def duels_of(contestants: Sequence[Contestant], metric: Metric, seed: int) -> tuple[Duel, ...]:
    """Return every pair with enough runs, the better one first, the best pairs first; p values are not adjusted yet."""
    enough = [c for c in contestants if c.seeds >= FEWEST_RUNS]
    scores = {c.name: {"": by_search(c.counted, [run.after[metric] for run in c.counted])} for c in enough}
    ranked = sorted(((c.name, c.after) for c in enough if c.after), key=lambda pair: -pair[1].value)
    return duels_between(ranked, scores, seed=seed)


def duels_between(
    ranked: Sequence[tuple[str, Estimate]], scores: Mapping[str, Searched], *, seed: int
) -> tuple[Duel, ...]:
    """Return every pair of these, each of three runs or more; p values are not adjusted yet. ranked: the best first."""
    duels = []
    for (first, ahead), (second, behind) in itertools.combinations(ranked, 2):
        assert ahead.interval and behind.interval, "three runs have an interval"
        duels.append(
            Duel(
                first=first,
                second=second,
                improvement=improvement_of(scores[first], scores[second], seed=seed),
                p_value=p_value_of(scores[first], scores[second], seed=seed),
                apart=ahead.interval[0] > behind.interval[1],
            )
        )
    return tuple(duels)

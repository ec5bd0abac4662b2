"""Runs sorted into tasks and, within each, contestants: what every table, figure and sentence is made from.

A task is an environment with its options and a model; a contestant is an algorithm with its hyperparameters. Runs of
one contestant differ in their seed alone. Names are as short as tells them apart: options appear where they differ.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evotext.reports.curves import Band, band_of, curve_of
from evotext.reports.fairness import differences_that_matter, differences_to_know, not_counted
from evotext.reports.records import AXES, COSTS, NAN, Axis, Metric, RunRecord
from evotext.reports.runs import clean
from evotext.reports.statistics import (
    FEWEST_RUNS,
    Estimate,
    estimate,
    holm,
    permutation_p_value,
    probability_of_improvement,
)

SIGNIFICANCE = 0.05
Settings = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One algorithm on one task."""

    name: str
    counted: tuple[RunRecord, ...]
    """Completed runs with a final score, one a seed: the figures are theirs."""
    others: tuple[RunRecord, ...]
    """Runs that are not counted."""
    before: Estimate | None
    """Held-out score before training."""
    after: Estimate | None
    """Held-out score at the end; None without counted runs."""
    cost: Mapping[str, float]
    """Mean totals of the counted runs; NaN where none says."""
    bands: Mapping[Axis, Band]
    """Learning curves of the counted runs; an axis is absent where they have no curve."""


@dataclass(frozen=True, kw_only=True)
class Duel:
    """Two contestants of one task; the first has the higher score."""

    first: str
    second: str
    improvement: Estimate
    """Probability that a run of the first scores above a run of the second."""
    p_value: float
    """Of the permutation test, adjusted for the number of duels on the task; NaN with too few runs."""
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
    contestants: tuple[Contestant, ...]
    duels: tuple[Duel, ...]
    unfair: tuple[str, ...]
    """Why these runs cannot be compared; a claim is made only if there is no such reason."""
    notes: tuple[str, ...]
    """What a reader should know besides."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that the report says."""

    metric: Metric
    tasks: tuple[Task, ...]
    runs: tuple[RunRecord, ...]
    """All of them, in the order found."""
    unnamed: tuple[RunRecord, ...]
    """Runs that do not say which algorithm or environment they are of: in no task."""
    labels: Mapping[Path, str]
    """A short name of each run's folder."""


def compare(runs: Sequence[RunRecord], *, metric: Metric, seed: int) -> Comparison:
    """Sort, aggregate and check. seed: of the bootstrap, so that the same runs give the same report."""
    named = [run for run in runs if run.algorithm and run.env]
    task_names = _names(named, lambda run: run.env, lambda run: _task_settings(run))
    tasks = []
    for task_name, members in _grouped(named, task_names).items():
        names = _names(members, lambda run: run.algorithm, lambda run: run.settings_of("algorithm"))
        groups = _grouped(members, names)
        notes: list[str] = []
        contestants = tuple(_contestant(name, groups[name], metric, seed, notes) for name in groups)
        counted = {c.name: c.counted for c in contestants}
        others = {c.name: c.others for c in contestants}
        tasks.append(
            Task(
                name=task_name,
                contestants=contestants,
                duels=_duels(contestants, metric, seed),
                unfair=tuple(differences_that_matter(counted)),
                notes=tuple(notes + differences_to_know(counted) + not_counted(counted, others)),
            )
        )
    return Comparison(
        metric=metric,
        tasks=tuple(tasks),
        runs=tuple(runs),
        unnamed=tuple(run for run in runs if not (run.algorithm and run.env)),
        labels=_labels(runs),
    )


def _task_settings(run: RunRecord) -> dict[str, str]:
    model = {f"model.{key}": value for key, value in run.settings_of("model").items()}
    return run.settings_of("env") | {"model": run.model} | model


def _names(
    runs: Sequence[RunRecord], base: Callable[[RunRecord], str], settings: Callable[[RunRecord], Settings]
) -> dict[Path, str]:
    """For each run its base name, with those settings in which runs of the same base name differ."""
    by_base: defaultdict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        by_base[base(run)].append(run)
    names = {}
    for name, members in by_base.items():
        found = {run.folder: settings(run) for run in members}
        keys = dict.fromkeys(key for each in found.values() if _configured(each) for key in each)
        for folder, each in found.items():
            if not _configured(each):
                differing = ["settings unknown"] if any(_configured(other) for other in found.values()) else []
            else:
                rivals = [other for other in found.values() if _configured(other)]
                differing = [
                    f"{key} {each.get(key, 'absent')}"
                    for key in keys
                    if any(other.get(key) != each.get(key) for other in rivals)
                ]
            names[folder] = f"{name} ({', '.join(differing)})" if differing else name
    return names


def _configured(settings: Settings) -> bool:
    """Whether a run's configuration was readable: more is known than the model's name."""
    return any(key != "model" for key in settings)


def _grouped(runs: Sequence[RunRecord], names: Mapping[Path, str]) -> dict[str, list[RunRecord]]:
    """Runs by name, in the names' natural order."""
    groups: defaultdict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        groups[names[run.folder]].append(run)
    return dict(sorted(groups.items(), key=lambda item: natural(item[0])))


def natural(text: str) -> list[tuple[int, float, str]]:
    """A sort key under which `delay 2` comes before `delay 16`."""
    key = []
    for word in re.split(r"[\s,()]+", text):
        try:
            key.append((0, float(word), ""))
        except ValueError:
            key.append((1, 0.0, word))
    return key


def _contestant(name: str, runs: Sequence[RunRecord], metric: Metric, seed: int, notes: list[str]) -> Contestant:
    counted: dict[object, RunRecord] = {}
    others = []
    for run in runs:
        if run.status != "completed" or not np.isfinite(run.after.get(metric, NAN)):
            others.append(run)
            continue
        key = run.seed if run.seed is not None else run.folder
        if key in counted:
            notes.append(f"{name} has more than one completed run of seed {run.seed}: the last one found counts")
            others.append(counted.pop(key))
        counted[key] = run
    chosen = tuple(sorted(counted.values(), key=lambda run: (run.seed is None, run.seed or 0)))
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
        after=_estimate([run.after[metric] for run in chosen], seed),
        cost={key: _mean([run.cost.get(key, NAN) for run in chosen]) for key in COSTS},
        bands=bands,
    )


def _estimate(scores: list[float], seed: int) -> Estimate | None:
    return estimate({"": scores}, seed=seed) if scores and np.isfinite(scores).all() else None


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else NAN


def _duels(contestants: Sequence[Contestant], metric: Metric, seed: int) -> tuple[Duel, ...]:
    """Every pair with enough runs, the better one first, the best pairs first."""
    ranked = sorted((c for c in contestants if c.after), key=lambda c: -c.after.value if c.after else 0.0)
    pairs = [
        (first, second)
        for i, first in enumerate(ranked)
        for second in ranked[i + 1 :]
        if min(len(first.counted), len(second.counted)) >= FEWEST_RUNS
    ]
    scores = {c.name: [run.after[metric] for run in c.counted] for c in ranked}
    p_values = holm([permutation_p_value(scores[x.name], scores[y.name], seed=seed) for x, y in pairs])
    duels = []
    for (x, y), p_value in zip(pairs, p_values, strict=True):
        assert x.after and x.after.interval and y.after and y.after.interval, "three runs have an interval"
        duels.append(
            Duel(
                first=x.name,
                second=y.name,
                improvement=probability_of_improvement({"": scores[x.name]}, {"": scores[y.name]}, seed=seed),
                p_value=p_value,
                apart=x.after.interval[0] > y.after.interval[1],
            )
        )
    return tuple(duels)


def _labels(runs: Sequence[RunRecord]) -> dict[Path, str]:
    """Folders without the part that all share."""
    resolved = [run.folder.resolve() for run in runs]
    if len(runs) == 1:
        return {runs[0].folder: clean(resolved[0].name)}
    shared = 0
    for parts in zip(*(path.parts for path in resolved), strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    return {run.folder: clean("/".join(path.parts[shared:])) for run, path in zip(runs, resolved, strict=True)}

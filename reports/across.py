"""The comparison over several tasks, and success against an option of a task that was swept.

Over tasks: scores are shares of success, so that tasks have one scale; the interquartile mean, the probability of
improvement and the performance profile are taken over the runs of all tasks, bootstrapped within each (as rliable does).
Only algorithms with enough runs on every task take part, under the names that they have there.

A sweep is three or more tasks that differ in one number alone, such as the turns of delay before a reward. Its tasks are
shown as a curve; they are many views of one task, so that they would outvote the others: they stay out of the figures
over tasks, unless there are no other tasks.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evotext.run_folder.record import Metric

from .curves import Band
from .searches import Searched, by_search, estimate_of
from .statistics import (
    FEWEST_RUNS,
    Array,
    Estimate,
    performance_profile,
)
from .tasks import Duel, Task, duels_between

FEWEST_VALUES = 3
"""Fewer values of an option do not make a curve."""
THRESHOLDS = np.linspace(0.0, 1.0, 51)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One algorithm over all tasks."""

    name: str
    score: Estimate
    """Interquartile mean."""
    above: Band
    """Share of runs that score above a threshold, over thresholds (`cost`)."""


@dataclass(frozen=True, kw_only=True)
class Overall:
    """Several tasks together."""

    tasks: tuple[str, ...]
    """Their names."""
    profiles: tuple[Profile, ...]
    """Best first."""
    duels: tuple[Duel, ...]
    """Every pair, averaged over tasks."""
    left_out: tuple[str, ...]
    """Algorithms and tasks that do not take part, and why."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Tasks that differ in one number."""

    name: str
    """The environment's."""
    option: str
    tasks: tuple[Task, ...]
    """Tasks by rising value."""
    values: tuple[float, ...]
    lines: Mapping[str, Band]
    """Each algorithm's final score over the option (`cost`), where it has counted runs."""


def sweeps_of(tasks: Sequence[Task]) -> tuple[Sweep, ...]:
    """Return every environment whose tasks differ in one numeric option; runs of several models give several sweeps."""
    found = []
    for members in _alike(tasks).values():
        keys = [key for key in dict.fromkeys(k for task in members for k in task.settings) if _differs(members, key)]
        values = {task.name: _number(task.settings.get(keys[0])) for task in members} if len(keys) == 1 else {}
        if len(set(values.values())) < FEWEST_VALUES or not all(map(np.isfinite, values.values())):
            continue
        ordered = tuple(sorted(members, key=lambda task: values[task.name]))
        found.append(
            Sweep(
                name=_name(members[0], tasks),
                option=keys[0],
                tasks=ordered,
                values=tuple(values[task.name] for task in ordered),
                lines=_lines(ordered, values),
            )
        )
    return tuple(found)


def overall_of(tasks: Sequence[Task], sweeps: Sequence[Sweep], metric: Metric, seed: int) -> Overall | None:
    """Compare algorithms over tasks; None for fewer than two tasks in common, and for returns, whose scales differ."""
    if metric != "success":
        return None
    swept = {task.name for sweep in sweeps for task in sweep.tasks}
    apart = [task for task in tasks if task.name not in swept]
    chosen = apart if len(apart) > 1 else list(tasks)
    left_out = [
        f"{sweep.name}: the values of {sweep.option} are shown as a sweep" for sweep in sweeps if apart == chosen
    ]
    left_out += [f"{task.name}: not a fair comparison" for task in chosen if task.unfair]
    chosen = [task for task in chosen if not task.unfair and any(c.counted for c in task.contestants)]
    scores: dict[str, Searched] = {}
    for name in dict.fromkeys(c.name for task in chosen for c in task.contestants):
        runs = {
            task.name: by_search(c.counted, [run.after[metric] for run in c.counted])
            for task in chosen
            for c in task.contestants
            if c.name == name and c.seeds >= FEWEST_RUNS
        }
        missing = [task.name for task in chosen if task.name not in runs]
        if missing:
            left_out.append(f"{name}: fewer than {FEWEST_RUNS} counted runs on {', '.join(missing)}")
        else:
            scores[name] = runs
    if len(chosen) < 2 or len(scores) < 2:
        return None
    profiles = [
        Profile(name=name, score=estimate_of(runs, seed=seed), above=_profile(runs, seed))
        for name, runs in scores.items()
    ]
    profiles.sort(key=lambda profile: -profile.score.value)
    return Overall(
        tasks=tuple(task.name for task in chosen),
        profiles=tuple(profiles),
        duels=duels_between([(p.name, p.score) for p in profiles], scores, seed=seed),
        left_out=tuple(left_out),
    )


def _profile(scores: Searched, seed: int) -> Band:
    runs = {task: [score for part in parts for score in part] for task, parts in scores.items()}
    share, interval = performance_profile(runs, THRESHOLDS, seed=seed)
    low, high = interval if interval is not None else (None, None)
    return Band(cost=THRESHOLDS, score=share, low=low, high=high, runs=sum(map(len, runs.values())))


def _alike(tasks: Sequence[Task]) -> dict[tuple[str, ...], list[Task]]:
    """Group the tasks by environment and model."""
    groups: defaultdict[tuple[str, ...], list[Task]] = defaultdict(list)
    for task in tasks:
        model = (f"{key}={value}" for key, value in task.settings.items() if key.split(".")[0] == "model")
        groups[(task.env, *model)].append(task)
    return groups


def _differs(tasks: Sequence[Task], key: str) -> bool:
    return len({task.settings.get(key) for task in tasks}) > 1


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return float("nan")


def _name(task: Task, tasks: Sequence[Task]) -> str:
    """Return the environment's name, with the model where several were tuned on it."""
    models = {other.settings.get("model") for other in tasks if other.env == task.env}
    return task.env if len(models) == 1 else f"{task.env} (model {task.settings.get('model', 'unknown')})"


def _lines(tasks: Sequence[Task], values: Mapping[str, float]) -> dict[str, Band]:
    lines = {}
    for name in dict.fromkeys(c.name for task in tasks for c in task.contestants):
        points = [
            (values[task.name], c.after, len(c.counted))
            for task in tasks
            for c in task.contestants
            if c.name == name and c.after
        ]
        if not points:
            continue
        known = all(after.interval for _, after, _ in points)
        lines[name] = Band(
            cost=np.array([value for value, _, _ in points]),
            score=np.array([after.value for _, after, _ in points]),
            low=_ends(points, 0) if known else None,
            high=_ends(points, 1) if known else None,
            runs=min(count for _, _, count in points),
        )
    return lines


def _ends(points: Sequence[tuple[float, Estimate, int]], end: int) -> Array:
    return np.array([after.interval[end] for _, after, _ in points if after.interval])

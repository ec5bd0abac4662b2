"""Runs sorted into tasks and, within each, contestants: the source of every table, figure and sentence.

A task is an environment with its options and a model; a contestant is an algorithm with its hyperparameters. Runs of
one contestant differ in their seed alone. Names are as short as tells them apart: options appear where they differ.

A page states leads on many tasks and over all of them, so chance has many occasions. The p values of all its duels are
adjusted together (Holm 1979): where nothing differs, at most one page in twenty states any lead.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evotext.run_folder.record import NAN, Metric, RunRecord
from evotext.run_folder.text import clean

from .across import Overall, Sweep, overall_of, sweeps_of
from .equal import sheets_of
from .fairness import differences_that_matter, differences_to_know, faults, not_counted, unequal_tuning
from .sheets import Sheet
from .statistics import holm
from .tasks import Duel, Task, contestant_of, duels_of
from .tuning import Tuning, is_trial, tunings_of

Settings = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The contents of the report."""

    metric: Metric
    tasks: tuple[Task, ...]
    sweeps: tuple[Sweep, ...]
    """Tasks that differ in one number."""
    overall: Overall | None
    """The comparison over several tasks."""
    tunings: tuple[Tuning, ...]
    """The tuning of hyperparameters."""
    sheets: Mapping[str, tuple[Sheet, ...]]
    """Further tables of each task, by its name."""
    runs: tuple[RunRecord, ...]
    """All of them but tuning's trials, in the order found."""
    unnamed: tuple[RunRecord, ...]
    """Runs that do not name their algorithm or environment: in no task."""
    labels: Mapping[Path, str]
    """A short name of each run's folder."""


def compare(runs: Sequence[RunRecord], *, metric: Metric | None, seed: int) -> Comparison:
    """Return the comparison of these runs: sorted, aggregated and checked.

    metric: None takes success, or the return if no run knows a success. seed: of the bootstrap, so that the same runs give the
    same report.
    """
    metric = metric or ("return" if any(map(_knows_no_success, runs)) and not any(map(_success, runs)) else "success")
    labels, trials = _labels(runs), [run for run in runs if is_trial(run)]
    runs = [run for run in runs if not is_trial(run)]
    named = [run for run in runs if run.algorithm and run.env]
    task_names = _names(named, lambda run: run.env, lambda run: _task_settings(run))
    tasks = []
    for task_name, members in _grouped(named, task_names).items():
        # Searches may have chosen other settings of one contestant: names tell apart those within each.
        names: dict[Path, str] = {}
        for draw in {run.draw for run in members}:
            searched = [run for run in members if run.draw == draw]
            names |= _names(searched, lambda run: run.algorithm, lambda run: run.settings_of("algorithm"))
        groups = _grouped(members, names)
        notes: list[str] = []
        contestants = tuple(contestant_of(name, groups[name], metric, seed, notes) for name in groups)
        counted = {c.name: c.counted for c in contestants}
        others = {c.name: c.others for c in contestants}
        tasks.append(
            Task(
                name=task_name,
                env=members[0].env,
                settings=next((found for run in members if _configured(found := _task_settings(run))), {}),
                contestants=contestants,
                duels=duels_of(contestants, metric, seed),
                unfair=tuple(differences_that_matter(counted) + unequal_tuning(counted, trials)),
                notes=tuple(
                    notes
                    + differences_to_know(counted)
                    + not_counted(counted, others)
                    + faults(counted)
                    + _without_success(members, metric)
                ),
            )
        )
    tasks, overall = _adjusted(tasks, overall_of(tasks, sweeps_of(tasks), metric, seed))
    return Comparison(
        metric=metric,
        tasks=tuple(tasks),
        sweeps=sweeps_of(tasks),
        overall=overall,
        tunings=tunings_of(trials, named, metric),
        sheets={task.name: sheets_of(task, metric, seed=seed) for task in tasks},
        runs=tuple(runs),
        unnamed=tuple(run for run in runs if not (run.algorithm and run.env)),
        labels=labels,
    )


def _success(run: RunRecord) -> bool:
    return math.isfinite(run.after.get("success", NAN))


def _knows_no_success(run: RunRecord) -> bool:
    return math.isfinite(run.after.get("return", NAN)) and not _success(run)


def _without_success(runs: Sequence[RunRecord], metric: Metric) -> list[str]:
    """Return a line about tasks that know no success, which a report of success leaves out."""
    if metric != "success" or any(map(_success, runs)) or not any(map(_knows_no_success, runs)):
        return []
    return ["this task knows no success, so that its runs are not counted; metric=return compares their returns"]


def _adjusted(tasks: Sequence[Task], overall: Overall | None) -> tuple[list[Task], Overall | None]:
    """Return the tasks with every p value adjusted for the number of duels on the page."""
    found = [duel for task in tasks for duel in task.duels] + list(overall.duels if overall else ())
    p_values = iter(holm([duel.p_value for duel in found]))

    def of(duels: Sequence[Duel]) -> tuple[Duel, ...]:
        return tuple(replace(duel, p_value=next(p_values)) for duel in duels)

    adjusted = [replace(task, duels=of(task.duels)) for task in tasks]
    return adjusted, replace(overall, duels=of(overall.duels)) if overall else None


def _task_settings(run: RunRecord) -> dict[str, str]:
    model = {f"model.{key}": value for key, value in run.settings_of("model").items()}
    return run.settings_of("env") | {"model": run.model} | model


def _names(
    runs: Sequence[RunRecord], base: Callable[[RunRecord], str], settings: Callable[[RunRecord], Settings]
) -> dict[Path, str]:
    """Return each run's base name, with the settings in which runs of the same base name differ."""
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
                differing = _said(each, [key for key in keys if any(o.get(key) != each.get(key) for o in rivals)])
            names[folder] = f"{name} ({', '.join(differing)})" if differing else name
    return names


def _configured(settings: Settings) -> bool:
    """Return whether a run's configuration was readable: more is known than the model's name."""
    return any(key != "model" for key in settings)


def _said(settings: Settings, keys: Sequence[str]) -> list[str]:
    """Return settings in words. A part of another class is shown by its class's name and then its own options, briefly."""
    parts = tuple(key.removesuffix("_target_") for key in keys if key.endswith("._target_"))
    words = []
    for key in keys:
        part = next((part for part in parts if key.startswith(part)), "")
        if not part:
            words.append(f"{key} {settings.get(key, 'absent')}")
        elif key.endswith("._target_"):
            words.append(f"{part.rstrip('.')} {settings.get(key, 'absent').rpartition('.')[2]}")
        elif key in settings:  # what the other class alone has is no setting of this one
            words.append(f"{key.removeprefix(part)} {settings[key]}")
    return words


def _grouped(runs: Sequence[RunRecord], names: Mapping[Path, str]) -> dict[str, list[RunRecord]]:
    """Return runs by name, in the names' natural order."""
    groups: defaultdict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        groups[names[run.folder]].append(run)
    return dict(sorted(groups.items(), key=lambda item: natural(item[0])))


def natural(text: str) -> list[tuple[int, float, str]]:
    """Return a sort key under which `delay 2` comes before `delay 16`."""
    key = []
    for word in re.split(r"[\s,()]+", text):
        try:
            key.append((0, float(word), ""))
        except ValueError:
            key.append((1, 0.0, word))
    return key


def _labels(runs: Sequence[RunRecord]) -> dict[Path, str]:
    """Return the folders without the part that all share."""
    resolved = [run.folder.resolve() for run in runs]
    if len(runs) == 1:
        return {runs[0].folder: clean(resolved[0].name)}
    shared = 0
    for parts in zip(*(path.parts for path in resolved), strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    return {run.folder: clean("/".join(path.parts[shared:])) for run, path in zip(runs, resolved, strict=True)}

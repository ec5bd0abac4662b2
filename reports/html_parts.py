"""The contents of each section of the page, as plain values: the template lays out and escapes, and decides nothing."""

from collections.abc import Sequence

from evotext.run_folder.record import NAN, EpisodeSample, RunRecord
from evotext.run_folder.text import clean

from . import formats
from .across import Sweep
from .comparison import Comparison
from .figures import (
    Look,
    axes_of,
    described,
    learning_curves,
    metric_title,
    points_in_words,
    profile_curves,
    styles,
    sweep_curves,
)
from .statistics import Estimate
from .tables import COST_TITLES, DETAIL_TITLES, change_cell, cost_cell, shown_cost, what_happened
from .tasks import Contestant, Duel, Task
from .tuning import Tuning
from .verdicts import explained, overall_verdict, ranked, setting, sweep_verdict, verdict

SHOWN_EPISODES = 2
Part = dict[str, object]


def task_part(task: Task, number: int, comparison: Comparison) -> Part:
    """Return the section of one task. number: ends its ids in the page."""
    style = styles(comparison)
    axes = axes_of(task, comparison.metric)
    best_first = [*ranked(task), *(c for c in task.contestants if not c.after)]
    names = [c.name for c in ranked(task)]
    return {
        "id": f"task-{number}",
        "name": task.name,
        "verdict": verdict(task),
        "setting": setting(task),
        "instances": task.instances,
        "unfair": task.unfair,
        "notes": task.notes,
        "figures": {axis: learning_curves(task, axis, comparison.metric, style) for axis in axes},
        "descriptions": {axis: described(task, axis, comparison.metric) for axis in axes},
        "points": {axis: points_in_words(task, axis) for axis in axes},
        "contestants": [_contestant(c, style[c.name], comparison) for c in best_first],
        "names": list(dict.fromkeys(name for c in task.contestants for name in c.by_task)),
        "ks": sorted({k for c in task.contestants for k in c.passes}),
        "duels": _duels(task.duels),
        "matrix": matrix(names, task.duels),
        "sheets": comparison.sheets[task.name],
    }


def overall_part(comparison: Comparison) -> Part | None:
    """Return the section of several tasks together."""
    overall = comparison.overall
    if overall is None:
        return None
    style = styles(comparison)
    finding = overall_verdict(overall)
    names = [profile.name for profile in overall.profiles]
    title = metric_title("success", [task for task in comparison.tasks if task.name in overall.tasks])
    return {
        "id": "overall",
        "verdict": finding[0].upper() + finding[1:] + ".",
        "tasks": formats.listed(list(overall.tasks)),
        "left_out": overall.left_out,
        "rows": [
            {"name": p.name, "look": style[p.name].colour, "runs": p.score.runs, **_scored(p.score, shares=True)}
            for p in overall.profiles
        ],
        "duels": _duels(overall.duels),
        "matrix": matrix(names, overall.duels),
        "figures": {"any": profile_curves(overall, title, style)},
        "descriptions": {"any": f"Share of runs above each {title.lower()}, over {len(overall.tasks)} tasks"},
    }


def sweep_part(sweep: Sweep, identity: str, comparison: Comparison) -> Part:
    """Return the section of one option's values. identity: the section's id."""
    finding = sweep_verdict(sweep)
    places = {name: dict(zip(line.cost, range(len(line.cost)), strict=True)) for name, line in sweep.lines.items()}
    rows = []
    for name, line in sweep.lines.items():
        cells = []
        for value in sweep.values:
            i = places[name].get(value)
            if i is None:
                cells.append((formats.MISSING, ""))
            else:
                known = line.low is not None and line.high is not None
                between = f"[{line.low[i]:.2f}, {line.high[i]:.2f}]" if known else ""  # type: ignore[index]
                cells.append((formats.score(float(line.score[i])), between))
        rows.append((name, cells))
    return {
        "id": identity,
        "name": f"{sweep.name} against {sweep.option}",
        "option": sweep.option,
        "verdict": finding[0].upper() + finding[1:] + ".",
        "values": [f"{value:g}" for value in sweep.values],
        "rows": rows,
        "figures": {"any": sweep_curves(sweep, comparison.metric, styles(comparison))},
        "descriptions": {
            "any": f"{metric_title(comparison.metric, sweep.tasks)} at the end "
            f"against {sweep.option} of {sweep.name}: {finding}"
        },
    }


def tuning_part(tuning: Tuning) -> Part:
    """Return the trials of one algorithm on one environment."""
    return {
        "title": tuning.title,
        "keys": list(tuning.trials[0].values),
        "trials": [
            {
                "values": list(trial.values.values()),
                "score": formats.score(trial.score),
                "status": trial.run.status,
                "reported": trial.reported,
            }
            for trial in tuning.trials
        ],
        "cost": {COST_TITLES[key]: shown_cost(key, tuning.cost[key]) for key in ("episodes", "seconds", "flops")},
    }


def run_part(run: RunRecord, comparison: Comparison) -> Part:
    """Return one run in the list of all."""
    going_on = run.status == "unfinished" and run.progress == run.progress
    return {
        "label": comparison.labels[run.folder],
        "algorithm": run.algorithm or "unknown",
        "env": run.env or "unknown",
        "seed": formats.MISSING if run.seed is None else str(run.seed),
        "status": f"unfinished, {run.progress:.0%} of its budget" if going_on else run.status,
        "after": formats.score(run.after.get(comparison.metric, NAN)),
        "happened": what_happened(run),
    }


def retention_rows(runs: Sequence[RunRecord], comparison: Comparison) -> list[Part]:
    """Return what each run unlearned, a row for each other task that was measured."""
    rows: list[Part] = []
    for run in runs:
        for task in () if run.retention is None else run.retention.tasks:
            known = task.success_before is not None or task.success_after is not None
            scores = (task.success_before, task.success_after) if known else (task.return_before, task.return_after)
            share = run.retention.drift_share if run.retention else None
            rows.append(
                {
                    "label": comparison.labels[run.folder],
                    "algorithm": run.algorithm or "unknown",
                    "env": run.env or "unknown",
                    "task": clean(task.env),
                    "metric": "success" if known else "return",
                    "change": " → ".join(formats.score(NAN if score is None else score) for score in scores),
                    "kl": formats.MISSING if task.kl_from_start is None else f"{task.kl_from_start:.4f}",
                    "drift": formats.MISSING if share is None else f"{share:.2%}",
                }
            )
    return rows


def matrix(names: Sequence[str], duels: Sequence[Duel]) -> list[tuple[str, list[Part | None]]]:
    """Return, for each pair of names, the probability that a run of the row scores above one of the column."""
    known: dict[tuple[str, str], Estimate] = {}
    for duel in duels:
        found = duel.improvement
        known[duel.first, duel.second] = found
        between = None if found.interval is None else (1 - found.interval[1], 1 - found.interval[0])
        known[duel.second, duel.first] = Estimate(value=1 - found.value, interval=between, runs=found.runs)
    if not known:
        return []
    return [(row, [_matrix_cell(known.get((row, column))) for column in names]) for row in names]


def _matrix_cell(found: Estimate | None) -> Part | None:
    if found is None:
        return None
    return {
        "value": formats.score(found.value),
        "interval": formats.interval(found),
        "share": f"{abs(2 * found.value - 1):.2f}",
        "side": "over" if found.value >= 0.5 else "under",
    }


def _duels(duels: Sequence[Duel]) -> list[Part]:
    return [
        {
            "pair": f"{duel.first} over {duel.second}",
            "improvement": f"{formats.score(duel.improvement.value)} {formats.interval(duel.improvement)}",
            "p_value": formats.p_value(duel.p_value),
            "explained": explained(duel),
        }
        for duel in duels
    ]


def _contestant(contestant: Contestant, look: Look, comparison: Comparison) -> Part:
    samples = next((run.samples for run in contestant.counted if len(run.samples) >= 2), ())
    return {
        "name": contestant.name,
        "look": look.colour,
        "seeds": len(contestant.counted),
        "before": formats.score(contestant.before.value) if contestant.before else formats.MISSING,
        **_scored(contestant.after, shares=comparison.metric == "success"),
        "cost": {key: cost_cell(contestant, key) for key in COST_TITLES},
        "details": {key: cost_cell(contestant, key) for key in DETAIL_TITLES},
        "passes": {k: change_cell(scores) for k, scores in contestant.passes.items()},
        "by_task": {name: change_cell(scores) for name, scores in contestant.by_task.items()},
        "samples": _side_by_side(samples[0], samples[-1]) if samples else [],
    }


def _scored(estimate: Estimate | None, *, shares: bool) -> Part:
    """Return value and interval, and where they are on a bar from 0 to 1."""
    bar = None
    if estimate and shares:
        low, high = estimate.interval or (estimate.value, estimate.value)
        bar = {"left": f"{100 * low:.1f}", "width": f"{100 * (high - low):.1f}", "at": f"{100 * estimate.value:.1f}"}
    return {
        "after": formats.score(estimate.value) if estimate else formats.MISSING,
        "interval": formats.interval(estimate),
        "bar": bar,
    }


def _side_by_side(first: EpisodeSample, last: EpisodeSample) -> list[tuple[str, str]]:
    return list(zip(first.texts, last.texts, strict=False))[:SHOWN_EPISODES]

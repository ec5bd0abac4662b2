"""Scores at equal operations, episodes, seconds and memory, each with what the other cost until then; and what a score takes.

The common amount of a task is what the run that spent least of it spent: no curve is drawn on beyond its end. A run's score
and costs there are read on the line between its two nearest measurements. Memory is not spent but needed: a contestant fits
a limit if none of its runs has had a greater peak, and its score is that at the budget.

These tables say what was measured and claim no lead: pairs are compared, and p values adjusted, at the budget alone.
"""

import math
from collections.abc import Sequence

import numpy as np

from evotext.run_folder.cost import Axis
from evotext.run_folder.record import NAN, Metric, RunRecord

from . import formats
from .curves import curve_of
from .reward_parts import parts_table
from .searches import by_search, estimate_of
from .sheets import Sheet
from .tasks import Contestant, Task

EQUAL: dict[Axis, str] = {"flops": "operations", "episodes": "episodes", "seconds": "seconds of training"}
"""The axes that are made equal, with their names."""
LEVELS = (0.5, 0.9)
NEVER = "never"


def equal_tables(task: Task, metric: Metric, *, seed: int) -> tuple[Sheet, ...]:
    """Return one table for each of `EQUAL` and one for memory, as far as the runs say; none where nothing is to compare."""
    found = [c for c in task.contestants if c.counted]
    if len(found) < 2:
        return ()
    tables = [_at_equal(axis, found, metric, seed) for axis in EQUAL]
    return tuple(table for table in (*tables, _at_equal_memory(found)) if table is not None)


def _at_equal(axis: Axis, contestants: Sequence[Contestant], metric: Metric, seed: int) -> Sheet | None:
    curves = {c.name: [curve_of(run, axis, metric) for run in c.counted] for c in contestants}
    ends = [float(curve.cost[-1]) for each in curves.values() for curve in each if curve is not None]
    if len(ends) < sum(map(len, curves.values())) or not min(ends) > 0:
        return None
    amount, others = min(ends), [other for other in EQUAL if other != axis]
    rows = []
    for c in contestants:
        scores = [float(np.interp(amount, curve.cost, curve.score)) for curve in curves[c.name] if curve is not None]
        after = estimate_of({"": by_search(c.counted, scores)}, seed=seed)
        costs = [
            _amount(other, float(np.mean([spent(run, axis, amount, other) for run in c.counted]))) for other in others
        ]
        rows.append((c.name, formats.score(after.value), formats.interval(after), *costs))
    return Sheet(
        title=f"At equal {EQUAL[axis]}: {_amount(axis, amount)}",
        note="The amount of the run that spent least; scores and mean costs of the others when they had spent as much.",
        heads=("Algorithm", metric.capitalize(), "95% interval", *(EQUAL[other].capitalize() for other in others)),
        rows=tuple(rows),
    )


def spent(run: RunRecord, axis: Axis, amount: float, other: Axis) -> float:
    """Return what the run had spent of another cost when it had spent this amount; NaN where its measurements do not say."""
    pairs = np.array([(point.cost[axis], point.cost[other]) for point in run.points]).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    return float(np.interp(amount, pairs[:, 0], pairs[:, 1])) if len(pairs) else NAN


def _at_equal_memory(contestants: Sequence[Contestant]) -> Sheet | None:
    peaks = {c.name: max(run.cost.get("peak_memory_bytes", NAN) for run in c.counted) for c in contestants}
    if not all(map(math.isfinite, peaks.values())):
        return None
    rows, best = [], contestants[0]
    for i, c in enumerate(ordered := sorted(contestants, key=lambda c: peaks[c.name])):
        best = max(ordered[: i + 1], key=lambda fitting: fitting.after.value if fitting.after else -math.inf)
        assert c.after is not None, "a contestant with counted runs has a score"
        rows.append(
            (c.name, formats.memory(peaks[c.name]), formats.score(c.after.value), formats.interval(c.after), best.name)
        )
    return Sheet(
        title="At equal memory",
        note="Measured peaks of the whole process, Python and its libraries included: the greatest of a contestant's runs. "
        "Under a limit as large as a row's peak, it and all above it fit.",
        heads=("Algorithm", "Peak", "Score at the budget", "95% interval", "Best that fits"),
        rows=tuple(rows),
    )


def reached(run: RunRecord, axis: Axis, level: float) -> float:
    """Return the cost at which the line through a run's measurements first comes to a success; infinity if it never does."""
    curve = curve_of(run, axis, "success")
    if curve is None:
        return math.inf
    above = np.flatnonzero(curve.score >= level)
    if not above.size:
        return math.inf
    last = int(above[0])
    if last == 0:
        return float(curve.cost[0])
    part = slice(last - 1, last + 1)
    return float(np.interp(level, curve.score[part], curve.cost[part]))


def reach_table(task: Task, axis: Axis = "flops") -> Sheet | None:
    """Return the cost that each contestant takes to each of `LEVELS`; None where no run has a curve.

    A run that never comes there counts as one that takes longer than any other, in the median too.
    """
    found = [c for c in task.contestants if any(curve_of(run, axis, "success") for run in c.counted)]
    if not found:
        return None
    rows = []
    for c in found:
        cells = [c.name]
        for level in LEVELS:
            costs = sorted(reached(run, axis, level) for run in c.counted)
            there = sum(map(math.isfinite, costs))
            median = float(np.quantile(costs, 0.5, method="higher"))
            cells += [
                f"{there} of {len(costs)}",
                _cost(median),
                " to ".join(dict.fromkeys(map(_cost, (costs[0], costs[-1])))),
            ]
        rows.append(tuple(cells))
    return Sheet(
        title=f"{EQUAL[axis].capitalize()} to a success",
        note="Where the line between measurements first comes there: the median run, and the first to the last. A run that "
        "never came there counts as later than all others.",
        heads=("Algorithm", *(head for level in LEVELS for head in (f"To {level:g}", "Median", "Spread"))),
        rows=tuple(rows),
    )


def _cost(value: float) -> str:
    return formats.count(value) if math.isfinite(value) else NEVER


def _amount(axis: Axis, value: float) -> str:
    return formats.seconds(value) if axis == "seconds" else formats.count(value)


def searches_table(task: Task) -> Sheet | None:
    """Return what each search of hyperparameters has chosen, and its score; None where nothing was searched twice."""
    if all(len(c.searches) < 2 for c in task.contestants):
        return None
    rows = [
        (
            c.name,
            str(i),
            search.setting or "as shipped",
            str(search.runs),
            formats.score(search.after.value) if search.after else formats.MISSING,
            formats.interval(search.after),
        )
        for c in task.contestants
        for i, search in enumerate(c.searches, start=1)
    ]
    return Sheet(
        title="What the searches have chosen",
        note="Each search had trials and a seed of its own. A contestant with one row here had the same setting chosen again.",
        heads=("Algorithm", "Search", "Setting", "Seeds", "After", "95% interval"),
        rows=tuple(rows),
    )


def sheets_of(task: Task, metric: Metric, *, seed: int) -> tuple[Sheet, ...]:
    """Return all tables of a task that stand beside its main one."""
    found = (
        parts_table(task),
        searches_table(task),
        *equal_tables(task, metric, seed=seed),
        reach_table(task) if metric == "success" else None,
    )
    return tuple(table for table in found if table is not None)

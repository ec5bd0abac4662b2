"""The named parts of a reward, run by run, at the first and the last measurement."""

from evotext.run_folder.record import NAN

from . import formats
from .sheets import Sheet
from .tasks import Task


def parts_table(task: Task) -> Sheet | None:
    """Return the mean of each part over the measured episodes, before and after; None where no reward has parts."""
    found = [
        (f"{c.name}, seed {run.seed}" if run.seed is not None else c.name, points)
        for c in task.contestants
        for run in (*c.counted, *c.others)
        if (points := [point for point in run.points if point.parts])
    ]
    names = list(dict.fromkeys(name for _, points in found for point in points for name in point.parts))
    if not names:
        return None
    rows = []
    for title, points in found:
        first, last = points[0], points[-1]
        pairs = [(first.parts.get(name, NAN), last.parts.get(name, NAN)) for name in names]
        pairs.append((first.score["return"], last.score["return"]))
        rows.append((title, *(" → ".join(map(formats.score, pair)) for pair in pairs)))
    return Sheet(
        title="Parts of the reward",
        note="Means over the measured episodes, at the first and the last measurement; a return is the sum of its parts.",
        heads=("Run", *names, "Return"),
        rows=tuple(rows),
    )

"""The scores of a run when its budget was spent.

A run ends within its budget, but for episodes that turned out longer than expected: its scores are those at its end. Those of
a run that ended past the budget, as runs of older versions did by up to a generation, are read where the budget ended: on the
line between the last two measurements.
"""

import math
from collections.abc import Mapping, Sequence

from evotext.run_folder.cost import AXES
from evotext.run_folder.record import EvaluationPoint, Metric


def at_budget(
    points: Sequence[EvaluationPoint], after: Mapping[Metric, float], *, unit: str, limit: float, spent: float
) -> tuple[dict[Metric, float], float]:
    """Return scores, and the amount spent by then: the limit, or everything where no measurements surround it.

    after: the scores at the end, which is the last of the points. unit: of the budget; updates are counted by no measurement.
    """
    axis = next((axis for axis in AXES if axis == unit), None)
    if len(points) < 2 or axis is None:
        return dict(after), spent
    (before, start), (_, end) = ((point, point.cost[axis]) for point in points[-2:])
    known = [metric for metric, score in after.items() if math.isfinite(score)]  # a task may know no success
    if not start < limit < end or not known or not all(math.isfinite(before.score[metric]) for metric in known):
        return dict(after), spent
    share = (limit - start) / (end - start)
    scores = {metric: before.score[metric] + share * (after[metric] - before.score[metric]) for metric in known}
    return {**after, **scores}, limit

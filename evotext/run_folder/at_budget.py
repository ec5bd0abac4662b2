"""The scores of a run when its budget was spent.

A generation is never cut short, so a run ends a little past its budget, and algorithms with larger generations further past
it. Scores are therefore read where the budget ended: on the line between the last two measurements.
"""

import math
from collections.abc import Mapping, Sequence

from evotext.run_folder.cost import AXES
from evotext.run_folder.record import EvaluationPoint, Metric


def at_budget(
    points: Sequence[EvaluationPoint], after: Mapping[Metric, float], *, unit: str, limit: float, spent: float
) -> tuple[dict[Metric, float], float]:
    """Return scores, and what had been spent when they were reached: the limit, or all without measurements around it.

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

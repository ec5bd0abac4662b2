"""Learning curves of several runs on one grid, by last value carried forward.

Runs are evaluated at slightly different costs. The grid moves on once every run has been evaluated again: its next
point is the smallest cost by which each run has a newer evaluation than at the last one. Every value on the grid is thus
a measured one, no run's curve lags by more than the others' spread, and runs that were evaluated at the same costs
keep exactly their points.

The grid ends with the shortest run. Runs of equal budgets end at slightly unequal costs;
hence a run's last value is carried past its end by at most the gap between its last two evaluations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evotext.run_folder.cost import Axis
from evotext.run_folder.record import Metric, RunRecord

from .statistics import FEWEST_RUNS, Array, interval_of, resamples, trimmed_mean

BAND_RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One run: score over cost."""

    cost: Array
    """Not falling."""
    score: Array


@dataclass(frozen=True, kw_only=True)
class Band:
    """Several runs: their interquartile mean over a grid of costs, with a pointwise bootstrap interval."""

    cost: Array
    score: Array
    low: Array | None
    """None with fewer than three runs."""
    high: Array | None
    runs: int


def curve_of(run: RunRecord, axis: Axis, metric: Metric) -> Curve | None:
    """Return the run's evaluations along an axis; None if fewer than two of them have both values."""
    pairs = np.array([(point.cost[axis], point.score[metric]) for point in run.points]).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    return Curve(cost=pairs[:, 0], score=pairs[:, 1]) if len(pairs) >= 2 else None


def common_grid(curves: Sequence[Curve]) -> Array:
    """Return costs at which every curve has a value, as described at the top."""
    grid = [max(curve.cost[0] for curve in curves)]
    ends = [curve.cost[-1] for curve in curves]
    reach = [2 * curve.cost[-1] - curve.cost[-2] for curve in curves]
    while all(end > grid[-1] for end in ends):
        following = max(curve.cost[np.searchsorted(curve.cost, grid[-1], side="right")] for curve in curves)
        if following > min(reach):
            following = min(ends)
        grid.append(following)
    return np.array(grid)


def carried_forward(curve: Curve, grid: Array) -> Array:
    """Return the curve's last value at or before each cost of the grid, which must not begin before the curve."""
    assert grid[0] >= curve.cost[0], "the grid starts where every curve has a value"
    score: Array = curve.score[np.searchsorted(curve.cost, grid, side="right") - 1]
    return score


def band_of(curves: Sequence[Curve], *, seed: int) -> Band:
    """Return the interquartile mean over runs with its interval at each point of the common grid."""
    grid = common_grid(curves)
    scores = np.stack([carried_forward(curve, grid) for curve in curves])
    low = high = None
    if len(curves) >= FEWEST_RUNS:
        drawn = scores[resamples(len(curves), seed=seed, count=BAND_RESAMPLES)]
        low, high = interval_of(trimmed_mean(np.moveaxis(drawn, 1, 0)))
    return Band(cost=grid, score=trimmed_mean(scores), low=low, high=high, runs=len(curves))


def value_at(band: Band, cost: float) -> tuple[float, float, float]:
    """Return score, low and high at a cost, carried forward; NaN outside the band's range or without an interval."""
    nothing = float("nan")
    if not band.cost[0] <= cost <= band.cost[-1]:
        return nothing, nothing, nothing
    i = int(np.searchsorted(band.cost, cost, side="right")) - 1
    if band.low is None or band.high is None:
        return float(band.score[i]), nothing, nothing
    return float(band.score[i]), float(band.low[i]), float(band.high[i])

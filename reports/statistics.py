"""Statistics for a handful of runs, as rliable defines them (Agarwal et al. 2021, arXiv 2108.13264), seeded and loud.

Scores come as one list of runs a task: {"sort": [0.8, 0.9, 0.7], "recall": [...]}. Lists may differ in length.

* Interquartile mean: the mean of the scores of all tasks together, without the floor(n/4) lowest and highest of the n.
  Below four scores nothing is cut off and it *is* the mean; `aggregate_name` says which of the two a figure is.
* Stratified bootstrap: runs are drawn with replacement within each task; the interval is between percentiles.
  It is too narrow for few runs: with three it is the range of the runs and covers the truth in 3 of 4 cases.
* Probability of improvement: how often a run of X scores above a run of Y, ties counting half, averaged over tasks.
* Performance profile: the share of all runs that score above a threshold, over thresholds.
* Permutation test (ours, rliable has none): how often equal algorithms would give a probability of improvement as far
  from one half as the observed one, runs being exchanged within their task. Exact for one task where that takes at most
  `MOST_SPLITS` splits of the runs, else sampled.

Every function raises ValueError for missing scores rather than pass NaN on.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = Mapping[str, Sequence[float]]
Array = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 10_000
PROFILE_RESAMPLES = 2_000
FEWEST_RUNS = 3
"""Below this no interval is given, and so no claim made."""
MOST_SPLITS = 20_000
# Scores are shares of a few hundred episodes: sums that differ by less than this differ by rounding alone.
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its bootstrap interval; the interval is None with fewer than `FEWEST_RUNS` runs in some task."""

    value: float
    interval: tuple[float, float] | None
    runs: int
    """Scores that it rests on."""


def checked_scores(scores: Scores) -> list[Array]:
    """Return one array a task. Raise ValueError naming what is missing."""
    if not scores:
        raise ValueError("expected scores of at least one task, got none")
    arrays = []
    for task, runs in scores.items():
        array = np.asarray(runs, dtype=np.float64)
        if array.ndim != 1 or array.size == 0:
            raise ValueError(f"expected at least one score for task {task!r}, got none: leave the task out or run it")
        if not np.isfinite(array).all():
            missing = [i for i, score in enumerate(array) if not np.isfinite(score)]
            raise ValueError(f"scores of task {task!r} are missing for runs {missing}: leave them out, and say so")
        arrays.append(array)
    return arrays


def trimmed_mean(scores: Array) -> Array:
    """Return the interquartile mean over the first axis."""
    count = scores.shape[0]
    cut = count // 4
    mean: Array = np.sort(scores, axis=0)[cut : count - cut].mean(axis=0)
    return mean


def interquartile_mean(scores: Scores) -> float:
    """Return the interquartile mean over the runs of all tasks together."""
    return float(trimmed_mean(np.concatenate(checked_scores(scores))))


def aggregate_name(count: int) -> str:
    """Return the name of `interquartile_mean` for this many scores."""
    return "interquartile mean" if count >= 4 else "mean"


def resamples(runs: int, *, seed: int, count: int = RESAMPLES) -> NDArray[np.intp]:
    """Return bootstrap draws of run indices, shape (count, runs)."""
    return np.random.default_rng(seed).integers(0, runs, size=(count, runs))


def interval_of(draws: Array) -> Array:
    """Return the percentile interval over the first axis, shape (2, ...)."""
    tail = (1 - CONFIDENCE) / 2
    interval: Array = np.quantile(draws, [tail, 1 - tail], axis=0)
    return interval


def estimate(scores: Scores, *, seed: int) -> Estimate:
    """Return the interquartile mean with its stratified bootstrap interval."""
    arrays = checked_scores(scores)
    interval = None
    if min(a.size for a in arrays) >= FEWEST_RUNS:
        drawn = [a[resamples(a.size, seed=seed + i)] for i, a in enumerate(arrays)]
        low, high = interval_of(trimmed_mean(np.concatenate(drawn, axis=1).T))
        interval = (float(low), float(high))
    return Estimate(value=interquartile_mean(scores), interval=interval, runs=sum(a.size for a in arrays))


def probability_of_improvement(x: Scores, y: Scores, *, seed: int) -> Estimate:
    """Return the probability that X scores above Y, with its stratified bootstrap interval. The tasks must be the same."""
    if set(x) != set(y):
        raise ValueError(f"expected the same tasks on both sides, got {sorted(x)} and {sorted(y)}")
    arrays_x, arrays_y = checked_scores(x), checked_scores({task: y[task] for task in x})
    value = float(np.mean([_wins(a, b).mean() for a, b in zip(arrays_x, arrays_y, strict=True)]))
    runs = sum(a.size for a in (*arrays_x, *arrays_y))
    if min(a.size for a in (*arrays_x, *arrays_y)) < FEWEST_RUNS:
        return Estimate(value=value, interval=None, runs=runs)
    draws = np.zeros(RESAMPLES)
    for i, (a, b) in enumerate(zip(arrays_x, arrays_y, strict=True)):
        wins = _wins(a, b)
        rows = resamples(a.size, seed=seed + 2 * i)
        columns = resamples(b.size, seed=seed + 2 * i + 1)
        draws += wins[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2)) / len(arrays_x)
    low, high = interval_of(draws)
    return Estimate(value=value, interval=(float(low), float(high)), runs=runs)


def _wins(x: Array, y: Array) -> Array:
    """Return 1 where x is above y, one half where they tie, shape (len(x), len(y))."""
    wins: Array = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
    return wins


def performance_profile(scores: Scores, thresholds: Array, *, seed: int) -> tuple[Array, Array | None]:
    """Share of runs above each threshold, and its pointwise interval of shape (2, thresholds) if there are enough runs."""
    arrays = checked_scores(scores)
    above = [a[:, None] > thresholds for a in arrays]
    profile: Array = np.concatenate(above).mean(axis=0)
    if min(a.size for a in arrays) < FEWEST_RUNS:
        return profile, None
    total = np.zeros((PROFILE_RESAMPLES, thresholds.size))
    for i, task in enumerate(above):
        total += task[resamples(len(task), seed=seed + i, count=PROFILE_RESAMPLES)].sum(axis=1)
    return profile, interval_of(total / sum(a.size for a in arrays))


def permutation_p_value(x: Scores, y: Scores, *, seed: int) -> float:
    """Share of the ways to exchange runs that put the probability of improvement as far from one half as it is."""
    arrays_x, arrays_y = checked_scores(x), checked_scores({task: y[task] for task in x})
    exact = len(arrays_x) == 1 and math.comb(arrays_x[0].size + arrays_y[0].size, arrays_x[0].size) <= MOST_SPLITS
    observed, drawn = 0.0, np.zeros(1)
    rng = np.random.default_rng(seed)
    for a, b in zip(arrays_x, arrays_y, strict=True):
        total, take = a.size + b.size, a.size
        _, position, counts = np.unique(np.concatenate([a, b]), return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[position]
        if exact:
            chosen = np.array(list(itertools.combinations(range(total), take)))
        else:
            chosen = rng.permuted(np.tile(np.arange(total), (MOST_SPLITS, 1)), axis=1)[:, :take]
        # The rank sum is the probability of improvement, shifted and scaled: Mann and Whitney's U.
        expected, pairs = take * (total + 1) / 2, a.size * b.size
        observed += float(ranks[:take].sum() - expected) / pairs
        drawn = drawn + (ranks[chosen].sum(axis=1) - expected) / pairs
    as_far = np.abs(drawn) >= abs(observed) - ROUNDING
    if exact:
        return float(as_far.mean())
    return float((as_far.sum() + 1) / (MOST_SPLITS + 1))  # the observed split is one of them: never 0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number (Holm 1979), in the order given."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = largest
    return adjusted

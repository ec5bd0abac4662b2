"""The report's verdicts worked out again from results.csv alone, with scipy: shares no code with the package.

    python tests/reports/independent_verdicts.py results.csv

Prints the figure of each contestant on each task with its interval, and for each pair of the page the adjusted p value and
whether the lead is clear. Interval ends and sampled p values are by chance, so that they agree to about 0.01.
"""

import csv
import itertools
import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

OVERALL = "all tasks"
EXACT = 20_000
RESAMPLES = 9_999


class Pair(NamedTuple):
    task: str
    first: str
    second: str


Scores = dict[str, dict[str, dict[int, list[float]]]]  # by task, contestant and search


def read(file: Path) -> Scores:
    scores: Scores = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if row["counted"] == "1":
                scores[row["task"]][row["contestant"]][int(row.get("search") or 1)].append(float(row["success_after"]))
    return scores


def figure(groups: list[list[list[float]]]) -> tuple[float, float, float]:
    """Interquartile mean over tasks and searches; groups: by search and task. The interval holds those of each search."""
    value = stats.trim_mean([score for search in groups for task in search for score in task], 0.25)
    rng = np.random.default_rng(12345)
    ends = []
    for search in groups:
        drawn = [np.asarray(task)[rng.integers(0, len(task), (RESAMPLES, len(task)))] for task in search]
        ends.append(np.quantile(stats.trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1), [0.025, 0.975]))
    return float(value), float(min(low for low, _ in ends)), float(max(high for _, high in ends))


def statistic(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean over tasks of Mann and Whitney's U as a share, less one half. Samples: of the first, then of the second."""
    half = len(samples) // 2
    shares = []
    for x, y in zip(samples[:half], samples[half:], strict=True):
        ranks = stats.rankdata(np.concatenate([x, y], axis=axis), axis=axis)
        n, m = x.shape[axis], y.shape[axis]
        total = np.take(ranks, range(n), axis=axis).sum(axis=axis)
        shares.append((total - n * (n + 1) / 2) / (n * m) - 0.5)
    return np.mean(shares, axis=0)


def p_value(x: list[list[float]], y: list[list[float]]) -> float:
    """Permutation test of two sides, runs exchanged within each task; x, y: by task."""
    if len(x) == 1 and math.comb(len(x[0]) + len(y[0]), len(x[0])) <= EXACT:
        found = stats.permutation_test(
            (x[0], y[0]), statistic, vectorized=True, n_resamples=np.inf, alternative="two-sided"
        )
        # scipy doubles the smaller tail; the statistic is symmetric, so that this is the share as far from 0 as observed.
        return float(np.mean(np.abs(found.null_distribution) >= abs(found.statistic) - 1e-9))
    rng = np.random.default_rng(54321)
    observed = abs(float(statistic(*map(np.asarray, x), *map(np.asarray, y))))
    shuffled = []
    for a, b in zip(x, y, strict=True):
        both = rng.permuted(np.tile(np.concatenate([a, b]), (RESAMPLES, 1)), axis=1)
        shuffled.append((both[:, : len(a)], both[:, len(a) :]))
    drawn = statistic(*(first for first, _ in shuffled), *(second for _, second in shuffled))
    return float((np.sum(np.abs(drawn) >= observed - 1e-9) + 1) / (RESAMPLES + 1))


def verdicts(
    scores: Scores,
) -> tuple[dict[tuple[str, str], tuple[float, float, float]], dict[Pair, tuple[float, bool]]]:
    """Figures by task and contestant, and for each pair, the better one first, the adjusted p value and whether it is clear."""
    places = {
        task: {name: [[runs] for _, runs in sorted(found.items())] for name, found in each.items()}
        for task, each in scores.items()
    }
    everywhere = set.intersection(*(set(each) for each in scores.values()))
    if len(scores) > 1 and len(everywhere) > 1:
        places[OVERALL] = {name: _over_tasks(name, scores) for name in sorted(everywhere)}
    figures = {(place, name): figure(groups) for place, each in places.items() for name, groups in each.items()}
    raw: dict[Pair, float] = {}
    for place, each in places.items():
        for one, other in itertools.combinations(each, 2):
            first, second = sorted((one, other), key=lambda name: -figures[place, name][0])
            pairs = list(itertools.product(each[first], each[second]))
            signs = {float(statistic(*map(np.asarray, x), *map(np.asarray, y))) > 0 for x, y in pairs}
            raw[Pair(place, first, second)] = max(p_value(x, y) for x, y in pairs) if len(signs) == 1 else 1.0
    adjusted, largest = {}, 0.0
    for rank, pair in enumerate(sorted(raw, key=lambda pair: raw[pair])):  # Holm
        largest = max(largest, min(1.0, raw[pair] * (len(raw) - rank)))
        apart = figures[pair.task, pair.first][1] > figures[pair.task, pair.second][2]
        adjusted[pair] = largest, apart and largest < 0.05
    return figures, adjusted


def _over_tasks(name: str, scores: Scores) -> list[list[list[float]]]:
    """By search and task; a task with fewer searches gives its last one to those that follow."""
    found = [[runs for _, runs in sorted(each[name].items())] for each in scores.values()]
    return [[task[min(i, len(task) - 1)] for task in found] for i in range(max(map(len, found)))]


if __name__ == "__main__":
    found_figures, found_pairs = verdicts(read(Path(sys.argv[1])))
    for (place, name), (value, low, high) in found_figures.items():
        print(f"{place}: {name} {value:.2f} [{low:.2f}, {high:.2f}]")
    for pair, (p, clear) in found_pairs.items():
        print(f"{pair.task}: {pair.first} over {pair.second}: p {p:.3f}{', clear' if clear else ''}")

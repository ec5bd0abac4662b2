"""Statistics against slow loops, hand-computed values, scipy, and simulated runs."""

import itertools
import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, trim_mean

from reports.statistics import (
    aggregate_name,
    estimate,
    holm,
    interquartile_mean,
    performance_profile,
    permutation_p_value,
    probability_of_improvement,
)

SCORES = st.lists(st.integers(0, 20).map(lambda k: k / 20), min_size=1, max_size=12)


@given(SCORES)
def test_interquartile_mean_is_rliables(scores: list[float]) -> None:
    assert interquartile_mean({"task": scores}) == pytest.approx(trim_mean(scores, 0.25))


def test_interquartile_mean_by_hand() -> None:
    assert interquartile_mean({"a": [0.0, 1.0, 2.0, 30.0]}) == 1.5
    assert interquartile_mean({"a": [0.0, 30.0], "b": [2.0, 1.0]}) == 1.5  # tasks are pooled
    assert interquartile_mean({"a": [0.0, 0.0, 30.0]}) == 10.0
    assert aggregate_name(3) == "mean" and aggregate_name(4) == "interquartile mean"


@pytest.mark.parametrize("scores", [{}, {"a": []}, {"a": [0.5, float("nan")]}, {"a": [float("inf")]}])
def test_missing_scores_are_refused_by_name(scores: dict[str, list[float]]) -> None:
    for function in (interquartile_mean, lambda s: estimate(s, seed=0)):
        with pytest.raises(ValueError, match=r"task"):
            function(scores)


def test_interval_of_three_runs_is_their_range() -> None:
    # 1 of 27 resamples is three times the lowest run, more than the 2.5% below the interval.
    result = estimate({"a": [0.2, 0.5, 0.6]}, seed=0)
    assert result.interval == pytest.approx((0.2, 0.6)) and result.runs == 3


def test_interval_against_all_resamples() -> None:
    scores = [0.1, 0.4, 0.5, 0.9]
    means = [trim_mean(draw, 0.25) for draw in itertools.product(scores, repeat=4)]
    result = estimate({"a": scores}, seed=1)
    assert result.interval is not None
    assert result.interval == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)


def test_resampling_stays_within_tasks() -> None:
    # Within tasks nothing varies; across tasks the pooled runs would.
    result = estimate({"easy": [0.9] * 4, "hard": [0.1] * 4}, seed=0)
    assert result.interval == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("count", [1, 2])
def test_few_runs_have_no_interval(count: int) -> None:
    assert estimate({"a": [0.5] * count}, seed=0).interval is None
    assert probability_of_improvement({"a": [0.5] * count}, {"a": [0.5] * 5}, seed=0).interval is None


def test_same_seed_same_interval() -> None:
    scores = {"a": list(np.random.default_rng(0).random(6))}
    assert estimate(scores, seed=3) == estimate(scores, seed=3)
    assert estimate(scores, seed=3).interval != estimate(scores, seed=4).interval


@pytest.mark.parametrize(("runs", "expected"), [(3, 0.75), (20, 0.93)])
def test_coverage_on_simulated_runs(runs: int, expected: float) -> None:
    # Three runs miss a median when all lie on one side of it: 2 in 8. Many runs tend to the nominal 95%.
    rng = np.random.default_rng(0)
    trials = 300
    hits = 0
    for trial in range(trials):
        low, high = estimate({"a": list(rng.standard_normal(runs))}, seed=trial).interval or (math.nan, math.nan)
        hits += low <= 0.0 <= high
    assert hits / trials == pytest.approx(expected, abs=0.06)


@given(SCORES, SCORES)
@settings(max_examples=30, deadline=None)
def test_probability_of_improvement_counts_pairs(x: list[float], y: list[float]) -> None:
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in x for b in y)
    forward = probability_of_improvement({"t": x}, {"t": y}, seed=0)
    backward = probability_of_improvement({"t": y}, {"t": x}, seed=0)
    assert forward.value == pytest.approx(wins / (len(x) * len(y)))
    assert forward.value + backward.value == pytest.approx(1.0)
    if forward.interval:
        assert 0.0 <= forward.interval[0] <= forward.interval[1] <= 1.0


def test_probability_of_improvement_averages_tasks_whatever_their_order() -> None:
    x = {"a": [1.0, 1.0, 1.0], "b": [0.0, 0.0, 0.0]}
    y = {"b": [0.5, 0.5, 0.5], "a": [0.5, 0.5, 0.5]}
    result = probability_of_improvement(x, y, seed=0)
    assert result.value == 0.5 and result.interval == (0.5, 0.5)
    with pytest.raises(ValueError, match="same tasks"):
        probability_of_improvement(x, {"a": [0.5]}, seed=0)


def p_value(x: list[float], y: list[float], seed: int) -> float:
    return permutation_p_value({"task": x}, {"task": y}, seed=seed)


def test_exact_p_values_by_hand() -> None:
    # Complete separation is the most extreme of C(n, k) splits, in either direction.
    assert p_value([0.8, 0.9, 1.0], [0.1, 0.2, 0.3], seed=0) == pytest.approx(2 / 20)
    assert p_value([4, 5, 6, 7, 8], [1, 2, 3, 0, -1], seed=0) == pytest.approx(2 / 252)
    assert p_value([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], seed=0) == 1.0


@given(st.permutations(range(9)), st.integers(2, 7))
@settings(max_examples=30)
def test_exact_p_value_is_mann_and_whitneys(order: list[int], take: int) -> None:
    x, y = [float(i) for i in order[:take]], [float(i) for i in order[take:]]
    reference = mannwhitneyu(x, y, method="exact").pvalue
    assert p_value(x, y, seed=0) == pytest.approx(reference)


def test_sampled_p_value_is_near_the_exact_one_and_never_zero() -> None:
    rng = np.random.default_rng(0)
    x, y = list(rng.standard_normal(12)), list(rng.standard_normal(12) - 0.8)
    assert p_value(x, y, seed=0) == pytest.approx(mannwhitneyu(x, y, method="exact").pvalue, abs=0.01)
    assert 0 < p_value(list(range(20)), list(range(100, 120)), seed=0) < 0.001


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_p_value_over_tasks_exchanges_runs_within_each() -> None:
    """Against every combination of two tasks' splits. A task's level has no say, only the order of runs within it."""
    x = {"a": [0.1, 0.2, 0.4], "b": [0.8, 0.9, 0.95]}
    y = {"a": [0.05, 0.15, 0.3], "b": [0.7, 0.75, 0.85]}

    def wins(first: Any, second: Any) -> float:
        return sum((a > b) + 0.5 * (a == b) for a in first for b in second) / 9

    deviations = []
    for task in x:
        runs = x[task] + y[task]
        splits = [set(split) for split in itertools.combinations(range(6), 3)]
        deviations.append([wins([runs[i] for i in s], [runs[i] for i in range(6) if i not in s]) - 0.5 for s in splits])
    observed = sum(wins(x[task], y[task]) - 0.5 for task in x)
    expected = np.mean([abs(a + b) >= abs(observed) - 1e-9 for a in deviations[0] for b in deviations[1]])
    assert permutation_p_value(x, y, seed=0) == pytest.approx(expected, abs=0.01)
    shifted = {task: [score + 10 for score in runs] if task == "b" else runs for task, runs in x.items()}
    against = {task: [score + 10 for score in runs] if task == "b" else runs for task, runs in y.items()}
    assert permutation_p_value(shifted, against, seed=0) == permutation_p_value(x, y, seed=0)


def test_performance_profile_by_hand() -> None:
    thresholds = np.array([0.0, 0.5, 0.9])
    share, interval = performance_profile({"a": [0.0, 0.5, 1.0], "b": [0.6, 0.6, 0.6]}, thresholds, seed=0)
    assert share == pytest.approx([5 / 6, 4 / 6, 1 / 6])  # above, not at
    assert interval is not None and (interval[0] <= share).all() and (share <= interval[1]).all()
    assert performance_profile({"a": [0.0, 0.5]}, thresholds, seed=0)[1] is None


RECORDED = json.loads((Path(__file__).parent / "rliable_values.json").read_text())


def agrees_with_rliable(values: dict[str, Any]) -> None:
    """Figures are equal; ends of intervals are within the noise of two bootstraps."""
    x, y = values["x"], values["y"]
    for name, scores in (("x", x), ("y", y)):
        ours = estimate(scores, seed=0)
        assert ours.interval is not None
        value, low, high = values["interquartile_mean"][name]
        assert ours.value == pytest.approx(value, abs=1e-12)
        assert ours.interval == pytest.approx((low, high), abs=0.004)
    improvement = probability_of_improvement(x, y, seed=0)
    value, low, high = values["probability_of_improvement"]["x,y"]
    assert improvement.value == pytest.approx(value, abs=1e-12)
    assert improvement.interval == pytest.approx((low, high), abs=1 / 75)  # one pair of runs in three tasks of 25
    share, interval = performance_profile(x, np.array(values["thresholds"]), seed=0)
    value, low, high = values["profile"]
    assert share == pytest.approx(value, abs=1e-12)
    assert interval is not None
    assert interval == pytest.approx(np.array([low, high]), abs=1 / 15 + 1e-9)  # one run of fifteen


def test_agrees_with_what_rliable_said() -> None:
    agrees_with_rliable(RECORDED)


@pytest.mark.skipif("RLIABLE_PYTHON" not in os.environ, reason="RLIABLE_PYTHON names no Python that has rliable")
def test_agrees_with_rliable_itself() -> None:
    script = Path(__file__).parent / "record_rliable.py"
    command = [os.environ["RLIABLE_PYTHON"], "-W", "ignore", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
    agrees_with_rliable(json.loads(done.stdout))

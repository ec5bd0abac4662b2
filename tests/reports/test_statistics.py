"""Statistics against slow loops, hand-computed values, scipy, and simulated runs."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, trim_mean

from evotext.reports.statistics import (
    aggregate_name,
    estimate,
    holm,
    interquartile_mean,
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


def test_exact_p_values_by_hand() -> None:
    # Complete separation is the most extreme of C(n, k) splits, in either direction.
    assert permutation_p_value([0.8, 0.9, 1.0], [0.1, 0.2, 0.3], seed=0) == pytest.approx(2 / 20)
    assert permutation_p_value([4, 5, 6, 7, 8], [1, 2, 3, 0, -1], seed=0) == pytest.approx(2 / 252)
    assert permutation_p_value([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], seed=0) == 1.0


@given(st.permutations(range(9)), st.integers(2, 7))
@settings(max_examples=30)
def test_exact_p_value_is_mann_and_whitneys(order: list[int], take: int) -> None:
    x, y = [float(i) for i in order[:take]], [float(i) for i in order[take:]]
    reference = mannwhitneyu(x, y, method="exact").pvalue
    assert permutation_p_value(x, y, seed=0) == pytest.approx(reference)


def test_sampled_p_value_is_near_the_exact_one_and_never_zero() -> None:
    rng = np.random.default_rng(0)
    x, y = list(rng.standard_normal(12)), list(rng.standard_normal(12) - 0.8)
    assert permutation_p_value(x, y, seed=0) == pytest.approx(mannwhitneyu(x, y, method="exact").pvalue, abs=0.01)
    assert 0 < permutation_p_value(list(range(20)), list(range(100, 120)), seed=0) < 0.001


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []

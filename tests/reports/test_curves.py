"""Common grids and carried values against loops and hand-made curves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.curves import Curve, band_of, carried_forward, common_grid, value_at


def curve(*pairs: tuple[float, float]) -> Curve:
    return Curve(cost=np.array([c for c, _ in pairs]), score=np.array([s for _, s in pairs]))


def test_runs_evaluated_alike_keep_their_points() -> None:
    runs = [curve((0, 0.1), (10, 0.5), (20, 0.9)), curve((0, 0.3), (10, 0.7), (20, 0.7))]
    band = band_of(runs, seed=0)
    assert band.cost.tolist() == [0, 10, 20]
    assert band.score == pytest.approx([0.2, 0.6, 0.8])
    assert band.low is None and band.runs == 2


def test_grid_waits_for_the_slowest_and_keeps_final_scores() -> None:
    runs = [curve((0, 0.0), (9, 0.4), (21, 0.8)), curve((0, 0.0), (11, 0.2), (20, 0.6))]
    assert common_grid(runs).tolist() == [0, 11, 21]
    assert band_of(runs, seed=0).score == pytest.approx([0.0, 0.3, 0.7])


def test_grid_ends_with_the_shortest_run() -> None:
    runs = [curve((0, 0.0), (10, 0.5)), curve((0, 0.0), (40, 0.3), (80, 1.0))]
    assert common_grid(runs).tolist() == [0, 10]
    assert band_of(runs, seed=0).score == pytest.approx([0.0, 0.25])


COSTS = st.lists(st.integers(0, 60), min_size=2, max_size=12).map(lambda costs: sorted({0, *costs, 61}))


@given(st.lists(COSTS, min_size=1, max_size=4))
def test_grid_rises_and_every_run_was_evaluated_again(costs: list[list[int]]) -> None:
    runs = [curve(*[(c, float(i)) for i, c in enumerate(each)]) for each in costs]
    grid = common_grid(runs)
    assert grid[0] == 0 and (np.diff(grid) > 0).all()
    assert min(each[-1] for each in costs) - 1 <= grid[-1] <= max(each[-1] for each in costs)
    for run in runs:
        slow = [[s for c, s in zip(run.cost, run.score, strict=True) if c <= g][-1] for g in grid]
        assert carried_forward(run, grid).tolist() == slow
        assert (np.diff(carried_forward(run, grid)[:-1]) > 0).all()


def test_band_of_one_run_is_the_run_and_three_have_an_interval() -> None:
    single = curve((0, 0.1), (5, 0.4))
    assert band_of([single], seed=0).score.tolist() == [0.1, 0.4]
    band = band_of([curve((0, 0.1), (5, s)) for s in (0.2, 0.4, 0.9)], seed=0)
    assert band.low is not None and band.high is not None
    assert (band.low[-1], band.score[-1], band.high[-1]) == pytest.approx((0.2, 0.5, 0.9))
    assert (band.low[0], band.high[0]) == pytest.approx((0.1, 0.1))
    assert value_at(band, 4.9)[0] == pytest.approx(0.1) and value_at(band, 5)[2] == pytest.approx(0.9)
    assert np.isnan(value_at(band, 5.1)).all() and np.isnan(value_at(band, -1)).all()

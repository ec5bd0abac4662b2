"""The page that compares the probe's forecasts with what runs gained."""

from pathlib import Path
from typing import Any

import forecasts
import pytest
from scipy import stats

ROOT = Path(__file__).parents[1]


def test_the_rank_correlation_is_scipys() -> None:
    a, b = [3.0, 1.0, 2.0, 2.0, 9.0, 4.0], [1.0, 0.0, 0.0, 5.0, 6.0, 0.5]
    assert forecasts.rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def record(env: str, gain: float) -> dict[str, Any]:
    sigma = {"sigma": 0.02, "signal": 0.3, "gain": gain, "error": 0.001}
    return {"env": env, "success_sampled": 0.2, "sigmas": [sigma]}


def test_a_run_is_forecast_for_the_generations_that_it_had() -> None:
    runs = forecasts.runs_of(ROOT / forecasts.RUNS)
    assert len(runs) == 18 and all(run["algorithm"] == "eggroll" for run in runs.values())
    rows = forecasts.table([record("hanoi", 0.001), record("sort", 0.01), record("code", 0.01)], runs)
    assert [row["env"] for row in rows] == ["sort", "code", "hanoi"]  # equal gains, more generations
    assert rows[0]["generations"] == 29 and rows[0]["measured"] == pytest.approx(0.74609375 - 0.2109375)
    assert rows[0]["forecast"] == pytest.approx(forecasts.rise(0.01, success=0.2, generations=29))
    lines = forecasts.markdown(rows)
    assert lines[2].startswith("| `sort` * |") and any("3 tasks (all)" in line for line in lines)


def test_what_a_perfect_forecast_would_get_falls_with_the_spread_of_the_gains() -> None:
    def rows(after: list[float]) -> list[dict[str, Any]]:
        return [{"measured_before": 0.2, "measured_after": s, "measured": s - 0.2} for s in after]

    apart, alike = rows([0.2, 0.4, 0.6, 0.8, 0.95]), rows([0.2, 0.21, 0.22, 0.23, 0.24])
    assert float(forecasts.most(apart).median()) == pytest.approx(1.0)
    assert float(forecasts.most(alike).median()) < 0.9

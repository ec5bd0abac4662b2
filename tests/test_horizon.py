"""The horizon study: equal starts, and a crossover that is stated where there is one."""

import csv
from pathlib import Path

import numpy as np
import pytest
from horizons import crossover, starts

from evotext.run_folder.record import EvaluationPoint, RunRecord


def cells(lead_short: float, lead_long: float, seeds: int = 6) -> crossover.Cells:
    """`es` leads `rl` by so much at the shortest and at the longest of four lengths, in between on a line."""
    rng = np.random.default_rng(3)
    lengths = (1, 2, 4, 8)
    return {
        name: {
            n: (0.5 + sign * np.interp(i, [0, 3], [lead_short, lead_long]) / 2 + rng.normal(0, 0.01, seeds)).tolist()
            for i, n in enumerate(lengths)
        }
        for name, sign in (("es", 1), ("rl", -1))
    }


@pytest.mark.parametrize(
    ("short", "long", "verdict"),
    [(-0.4, 0.4, "confirmed"), (-0.4, -0.2, "refuted"), (-0.4, 0.0, "undecided"), (0.3, 0.3, "undecided")],
)
def test_a_crossover_takes_both_sides(short: float, long: float, verdict: str) -> None:
    found = cells(short, long)
    gaps = crossover.gaps(found, ["es"], ["rl"])
    assert [gap.length for gap in gaps] == [1, 2, 4, 8]
    assert gaps[0].difference == pytest.approx(short, abs=0.02) and gaps[-1].low < gaps[-1].difference < gaps[-1].high
    assert crossover.verdict(gaps) == verdict
    (slope,) = crossover.slopes(found, ["es"], ["rl"])
    assert slope.slope == pytest.approx((long - short) / 3, abs=0.02)
    assert (slope.p_value < 0.05) == (short != long)


def test_the_intervals_are_welchs() -> None:
    """One length alone: scipy's own t test, and by an independent formula the contrast of two lengths."""
    from scipy import stats

    found = cells(-0.1, 0.1)
    gap = crossover.gaps(found, ["es"], ["rl"])[0]
    expected = stats.ttest_ind(found["es"][1], found["rl"][1], equal_var=False).confidence_interval(0.95)
    assert (gap.low, gap.high) == pytest.approx((expected.low, expected.high))


def test_chance_is_rarely_taken_for_a_crossover() -> None:
    """Two contestants a side that are equally good at every length, three seeds each."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(200):
        found = {name: {n: rng.normal(0.5, 0.1, 3).tolist() for n in (1, 2, 4, 8)} for name in ("a", "b", "c", "d")}
        wrong += any(gap.p_value < 0.05 for gap in crossover.gaps(found, ["a", "b"], ["c", "d"]))
    assert wrong / 200 <= 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5


def test_pages_read_scores_at_equal_episodes_and_leave_out_seeds_that_are_not_whole(tmp_path: Path) -> None:
    import horizon_page

    def run(algorithm: str, length: int, seed: int, episodes: float) -> RunRecord:
        points = tuple(
            EvaluationPoint(generation=i, cost={"episodes": i * episodes}, score={"success": 0.4 * i})  # type: ignore[dict-item]
            for i in range(3)
        )
        return RunRecord(
            folder=tmp_path,
            algorithm=algorithm,
            seed=seed,
            before={"success": 0.0},
            after={"success": 0.8},
            cost=dict.fromkeys(("episodes", "generated_tokens", "updates", "flops", "seconds"), 1.0),
            settings={"env.delay": str(length)},
            overrides=("env=recall", "algorithm.lr=1"),
            points=points,
        )

    runs = [run(a, n, s, 100 if a == "ppo" else 400) for a in ("eggroll", "ppo") for n in (1, 4) for s in range(3)]
    rows = horizon_page.table([*runs, run("ppo", 4, 3, 100)])
    assert {row["success_at_equal_episodes"] for row in rows if row["algorithm"] == "ppo"} == {0.8}
    assert {row["success_at_equal_episodes"] for row in rows if row["algorithm"] == "eggroll"} == {0.2}
    assert {row["setting"] for row in rows} == {"lr=1"}
    assert {row["seed"] for row in horizon_page.whole_seeds(rows)} == {0, 1, 2}
    with pytest.raises(ValueError, match="two seeds or more"):
        horizon_page.whole_seeds(rows[:1])


@pytest.mark.slow
def test_a_start_has_the_success_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The band is one that a small, hardly trained model is in anyway; a second call finds the start."""
    monkeypatch.setattr(starts, "BASE_STEPS", 2)
    monkeypatch.setattr(starts, "DECIDE", 16)
    monkeypatch.setattr(starts, "CENTRE", 0.0)
    monkeypatch.setenv("EVOTEXT_CACHE", str(tmp_path / "cache"))
    words = ["env=recall", "env.delay=1", "model.hidden_size=32", "model.intermediate_size=48", "model.layers=1"]
    words += ["model.heads=2", "model.steps=2"]
    found = starts.start(tmp_path / "start", words, None)
    assert abs(found["greedy"]) <= starts.HALF_WIDTH and (tmp_path / "start" / "model.safetensors").is_file()
    (tmp_path / "start" / "model.safetensors").unlink()
    assert starts.start(tmp_path / "start", words, None) == found
    longer = starts.start(tmp_path / "longer", [*words, "env.delay=2"], tmp_path / "start")
    assert longer["instances"] == 16


def test_demonstrations_are_those_that_are_asked_for() -> None:
    from itertools import islice

    from evotext.cli.composing import compose
    from evotext.cli.targets import build

    task = build(compose("config", ["env=recall", "env.delay=3"]), "env")
    for solved in (True, False):
        for turns in islice(starts._demonstrations(task, solved), 20):
            assert len(turns) == 5 and (turns[-1][1] == turns[0][0].removeprefix("key ")) == solved


def test_the_published_data_are_those_of_the_page() -> None:
    """Each figure of the page's table of scores, from the CSV beside it."""
    results = Path(__file__).resolve().parents[1] / "docs" / "results"
    if not (results / "horizon.csv").exists():
        pytest.skip("the study has not been published")
    with (results / "horizon.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    page = (results / "horizon.md").read_text(encoding="utf-8")
    for length in {row["length"] for row in rows}:
        for algorithm in {row["algorithm"] for row in rows}:
            found = [float(r["success_after"]) for r in rows if (r["length"], r["algorithm"]) == (length, algorithm)]
            assert f"{sum(found) / len(found):.2f} ({min(found):.2f} to {max(found):.2f})" in page

"""Scores at equal operations, episodes, seconds and memory, and what a success takes."""

import math

import pytest

from evotext.run_folder.cost import Axis
from evotext.run_folder.record import EvaluationPoint, RunRecord
from reports.comparison import Comparison, compare
from reports.equal import reached
from reports.latex import latex
from reports.sheets import Sheet
from tests.reports.run_records import run_record

Point = tuple[float, float, float, float]  # operations, episodes, seconds, success


def run(algorithm: str, seed: int, points: list[Point], peak: float = 1e9) -> RunRecord:
    def cost(flops: float, episodes: float, seconds: float) -> dict[Axis, float]:
        return {"flops": flops, "episodes": episodes, "seconds": seconds, "generated_tokens": 7 * episodes}

    curve = tuple(
        EvaluationPoint(generation=i, cost=cost(*point[:3]), score={"success": point[3], "return": point[3]})
        for i, point in enumerate(points)
    )
    return run_record(
        algorithm,
        points[-1][3],
        seed=seed,
        budget_unit="flops",
        before={"success": points[0][3]},
        cost={"peak_memory_bytes": peak},
        points=curve,
    )


def page() -> Comparison:
    """`es` takes many cheap episodes, `rl` few dear ones; both get 100 operations."""
    es: list[Point] = [(0, 0, 0, 0.2), (50, 500, 10, 0.3), (100, 1000, 20, 0.4)]
    rl: list[Point] = [(0, 0, 0, 0.2), (50, 100, 5, 0.6), (100, 200, 10, 0.95)]
    runs = [run("es", seed, es, peak=5e8) for seed in range(3)]
    runs += [run("rl", seed, rl, peak=1e9 + seed) for seed in range(3)]
    return compare(runs, metric="success", seed=0)


def sheet(title: str) -> Sheet:
    (found,) = (one for one in page().sheets["sort"] if one.title.startswith(title))
    return found


@pytest.mark.parametrize(
    ("title", "heads", "rows"),
    [
        ("At equal operations: 100", ("Episodes", "Seconds of training"), ["0.40 1.00k 20.0 s", "0.95 200 10.0 s"]),
        # 200 episodes are two fifths of the way to the first measurement of `es`.
        ("At equal episodes: 200", ("Operations", "Seconds of training"), ["0.24 20 4.0 s", "0.95 100 10.0 s"]),
        ("At equal seconds of training: 10.0 s", ("Operations", "Episodes"), ["0.30 50 500", "0.95 100 200"]),
    ],
)
def test_each_table_is_read_at_the_same_amount(title: str, heads: tuple[str, ...], rows: list[str]) -> None:
    found = sheet(title)
    assert found.heads[3:] == heads
    assert [" ".join((row[0], row[1], *row[3:])) for row in found.rows] == [f"es {rows[0]}", f"rl {rows[1]}"]


def test_under_a_limit_of_memory_the_best_is_the_best_of_those_that_fit() -> None:
    assert sheet("At equal memory").rows == (
        ("es", "500 MB", "0.40", "[0.40, 0.40]", "es"),
        ("rl", "1.00 GB", "0.95", "[0.95, 0.95]", "rl"),
    )


@pytest.mark.parametrize(
    ("level", "expected"),
    [(0.1, 0.0), (0.2, 0.0), (0.25, 25.0), (0.3, 50.0), (0.35, 75.0), (0.4, 100.0), (0.41, math.inf)],
)
def test_a_level_is_reached_where_the_line_first_comes_there(level: float, expected: float) -> None:
    fallen: list[Point] = [(0, 0, 0, 0.2), (50, 1, 1, 0.3), (100, 2, 2, 0.4), (150, 3, 3, 0.1), (200, 4, 4, 0.4)]
    assert reached(run("es", 0, fallen), "flops", level) == pytest.approx(expected)


def test_runs_that_never_come_there_count_as_last() -> None:
    slow: list[Point] = [(0, 0, 0, 0.2), (100, 10, 1, 0.45)]
    fast: list[Point] = [(0, 0, 0, 0.2), (100, 10, 1, 0.8)]
    curves = {"es": (fast, slow, slow), "rl": (fast, fast, slow)}
    runs = [run(name, seed, curve) for name, each in curves.items() for seed, curve in enumerate(each)]
    comparison = compare(runs, metric="success", seed=0)
    (found,) = (one for one in comparison.sheets["sort"] if one.title == "Operations to a success")
    assert found.rows == (
        ("es", "1 of 3", "never", "50 to never", "0 of 3", "never", "never"),
        ("rl", "2 of 3", "50", "50 to never", "0 of 3", "never", "never"),
    )


def test_latex_has_every_table_and_escapes_names() -> None:
    text = latex(page())
    assert text.count(r"\begin{table}") == text.count(r"\end{tabular}") == 7
    assert r"\caption{At equal" not in text and r"\caption{sort: At equal operations: 100." in text
    assert all(line.endswith(r"\\") for line in text.splitlines() if " & " in line)
    odd = compare(
        [run("a_b & 100% #1", seed, [(0, 0, 0, 0.2), (1, 1, 1, 0.5)]) for seed in range(3)], metric=None, seed=0
    )
    assert r"a\_b \& 100\% \#1" in latex(odd)

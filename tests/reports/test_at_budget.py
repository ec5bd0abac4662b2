"""Scores are read where the budget ended, whatever the size of a generation."""

import math
from pathlib import Path

import pytest

from evotext.run_folder.at_budget import at_budget
from evotext.run_folder.record import NAN, EvaluationPoint, RunRecord
from reports.axes import AXES
from reports.fairness import differences_that_matter
from reports.formats import p_value


def points(*pairs: tuple[float, float]) -> list[EvaluationPoint]:
    return [
        EvaluationPoint(generation=i, cost=dict.fromkeys(AXES, cost), score={"success": score, "return": 2 * score})
        for i, (cost, score) in enumerate(pairs)
    ]


def read(*pairs: tuple[float, float], unit: str = "flops", limit: float = 100.0) -> tuple[float, float]:
    measured = points(*pairs)
    scores, spent = at_budget(measured, measured[-1].score, unit=unit, limit=limit, spent=measured[-1].cost["flops"])
    assert scores["return"] == pytest.approx(2 * scores["success"], nan_ok=True)
    return scores["success"], spent


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(0, 0.2), (80, 0.4), (120, 0.8)], (0.6, 100)),  # halfway between the last two
        ([(0, 0.2), (90, 0.4), (130, 0.4)], (0.4, 100)),
        ([(0, 0.0), (400, 0.8)], (0.2, 100)),  # one generation was far too much
        ([(0, 0.2), (100, 0.9)], (0.9, 100)),  # it ended there
        ([(0, 0.2), (60, 0.5)], (0.5, 60)),  # it never got there
        ([(0, NAN), (120, 0.8)], (0.8, 120)),  # nothing to draw a line from
        ([(120, 0.8)], (0.8, 120)),
    ],
)
def test_scores_are_read_off_the_line_at_the_budget(
    pairs: list[tuple[float, float]], expected: tuple[float, float]
) -> None:
    assert read(*pairs) == pytest.approx(expected)


def test_updates_are_on_no_line() -> None:
    assert read((0, 0.2), (80, 0.4), (120, 0.8), unit="updates") == (0.8, 120)


def test_generations_of_unequal_size_are_no_unfairness_then() -> None:
    def run(*, compared_at: float) -> RunRecord:
        return RunRecord(
            folder=Path(), budget_unit="flops", budget_limit=100, budget_spent=150, compared_at=compared_at
        )

    assert differences_that_matter({"a": [run(compared_at=100)], "b": [run(compared_at=100)]}) == []
    assert differences_that_matter({"a": [run(compared_at=100)], "b": [run(compared_at=150)]})


def test_no_probability_is_zero() -> None:
    assert [p_value(p) for p in (0.0, 0.0004, 0.0005, 0.17, 1.0)] == ["< 0.001", "< 0.001", "0.001", "0.170", "1.000"]


def test_a_return_is_read_there_without_a_success_too() -> None:
    measured = [
        EvaluationPoint(generation=i, cost=dict.fromkeys(AXES, cost), score={"success": NAN, "return": score})
        for i, (cost, score) in enumerate([(0, -80.0), (80, -40.0), (120, -20.0)])
    ]
    scores, spent = at_budget(measured, measured[-1].score, unit="flops", limit=100.0, spent=120.0)
    assert (scores["return"], spent) == (-30.0, 100.0) and math.isnan(scores["success"])

"""Factors over a run: where they begin, where they end, and that they stay there."""

import math
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from pydantic import ValidationError

from evotext.optimization.schedules import Constant, Cosine, Linear


def test_a_straight_line() -> None:
    """Hand-computed; after the last generation the factor stays."""
    schedule = Linear(generations=4, end=0.2, warm_up=0)
    assert [schedule(g, 0.0) for g in range(6)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2])


def test_half_a_cosine() -> None:
    schedule = Cosine(generations=4, end=0.0, warm_up=0)
    expected = [1.0, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0.0, 0.0]
    assert [schedule(g, 0.0) for g in range(6)] == pytest.approx(expected)


@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_a_warm_up_rises_evenly_and_is_followed_by_the_whole_value(kind: type[Linear | Cosine]) -> None:
    schedule = kind(generations=10, end=0.5, warm_up=3)
    assert [schedule(g, 0.0) for g in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert schedule(10, 0.0) == pytest.approx(0.5)
    values = [schedule(g, 0.0) for g in range(3, 11)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_by_the_budget_only_its_share_counts(kind: type[Linear | Cosine]) -> None:
    """The path is that over a hundred generations, whichever generation it is."""
    by_budget = kind(generations=None, end=0.2, warm_up=0)
    by_generations = kind(generations=100, end=0.2, warm_up=0)
    for g in (0, 10, 50, 99, 100, 130):
        assert by_budget(3, g / 100) == pytest.approx(by_generations(g, 0.0))


def test_a_warm_up_by_the_budget_begins_above_0() -> None:
    schedule = Linear(generations=None, end=0.0, warm_up=0.2)
    assert [schedule(0, s) for s in (0.0, 0.1, 0.2, 0.6, 1.0)] == pytest.approx([0.1, 0.55, 1.0, 0.5, 0.0])


def test_constant() -> None:
    assert {Constant()(generation, generation / 100) for generation in range(100)} == {1.0}


@pytest.mark.parametrize(
    "settings",
    [
        {"generations": 0, "end": 0.1, "warm_up": 0},
        {"generations": 5, "end": -0.1, "warm_up": 0},
        {"generations": 5, "end": float("nan"), "warm_up": 0},
        {"generations": 5, "end": 0.1, "warm_up": 5},
        {"generations": 5, "end": 0.1, "warm_up": 0.5},
        {"generations": None, "end": 0.1, "warm_up": 1.0},
        {"generations": 5.5, "end": 0.1, "warm_up": 0},
    ],
)
def test_bad_settings_are_refused(settings: dict[str, float | None]) -> None:
    with pytest.raises((ValidationError, ValueError)):
        Linear(**settings)  # type: ignore[arg-type]


def test_a_floor_of_half_is_one_word() -> None:
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        config = compose("config", ["algorithm/schedule@algorithm.sigma_schedule=to_half"])
    schedule = instantiate(config.algorithm.sigma_schedule)
    assert [schedule(7, spent) for spent in (0.0, 0.5, 1.0, 1.2)] == pytest.approx([1.0, 0.75, 0.5, 0.5])

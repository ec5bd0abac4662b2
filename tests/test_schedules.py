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
    assert [schedule(g) for g in range(6)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2])


def test_half_a_cosine() -> None:
    schedule = Cosine(generations=4, end=0.0, warm_up=0)
    expected = [1.0, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0.0, 0.0]
    assert [schedule(g) for g in range(6)] == pytest.approx(expected)


@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_a_warm_up_rises_evenly_and_is_followed_by_the_whole_value(kind: type[Linear | Cosine]) -> None:
    schedule = kind(generations=10, end=0.5, warm_up=3)
    assert [schedule(g) for g in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert schedule(10) == pytest.approx(0.5)
    values = [schedule(g) for g in range(3, 11)]
    assert values == sorted(values, reverse=True)


def test_constant() -> None:
    assert {Constant()(generation) for generation in range(100)} == {1.0}


@pytest.mark.parametrize(
    "settings",
    [
        {"generations": 0, "end": 0.1, "warm_up": 0},
        {"generations": 5, "end": -0.1, "warm_up": 0},
        {"generations": 5, "end": float("nan"), "warm_up": 0},
        {"generations": 5, "end": 0.1, "warm_up": 5},
        {"generations": 5.5, "end": 0.1, "warm_up": 0},
    ],
)
def test_bad_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises((ValidationError, ValueError)):
        Linear(**settings)  # type: ignore[arg-type]


def test_a_floor_of_half_is_one_word() -> None:
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        config = compose("config", ["algorithm/schedule@algorithm.sigma_schedule=to_half"])
    schedule = instantiate(config.algorithm.sigma_schedule)
    assert [schedule(g) for g in (0, 50, 100, 1000)] == pytest.approx([1.0, 0.75, 0.5, 0.5])

"""Budgets measure what they are named after."""

import pytest

from evotext.runner.budget import Budget
from evotext.types import Cost

COST = Cost(
    episodes=10,
    env_steps=20,
    generated_tokens=300,
    updates=2,
    rollout_seconds=1.0,
    env_seconds=0.25,
    update_seconds=0.5,
    flops=1e9,
)


@pytest.mark.parametrize(
    ("unit", "spent"), [("episodes", 10), ("generated_tokens", 300), ("updates", 2), ("seconds", 1.75), ("flops", 1e9)]
)
def test_each_unit(unit: str, spent: float) -> None:
    budget = Budget(unit=unit, limit=20)  # type: ignore[arg-type]
    assert budget.spent(COST) == spent
    assert budget.fraction(COST) == spent / 20


def test_costs_add_up_field_by_field() -> None:
    twice = COST + COST
    assert twice.episodes == 20 and twice.seconds == 3.5 and twice.flops == 2e9
    assert COST + Cost() == COST


@pytest.mark.parametrize("wrong", [{"unit": "hours"}, {"limit": 0}, {"limit": float("nan")}, {"limit": "60"}])
def test_bad_budgets_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Budget(**{"unit": "seconds", "limit": 1.0} | wrong)  # type: ignore[arg-type]

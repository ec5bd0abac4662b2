"""Advantages against hand-computed cases and slow loops."""

import math

import pytest
import torch
from torch import Tensor

from baselines.advantages import generalised_advantages, whitened
from evotext.policy.advantages import STD_EPSILON, group_advantages


def test_group_advantages_by_hand() -> None:
    returns = torch.tensor([1.0, 0.0, 0.0, 0.0, 3.0, 5.0])
    groups = torch.tensor([0, 0, 0, 0, 1, 1])
    none = group_advantages(returns, groups, "none")
    assert none.tolist() == [0.75, -0.25, -0.25, -0.25, -1.0, 1.0]
    leave_one_out = group_advantages(returns, groups, "leave_one_out")
    torch.testing.assert_close(leave_one_out, torch.tensor([1, -1 / 3, -1 / 3, -1 / 3, -2, 2], dtype=torch.float64))
    std = group_advantages(returns, groups, "std")
    assert std[0] == pytest.approx(0.75 / (0.5 + STD_EPSILON))
    assert std[5] == pytest.approx(1.0 / (math.sqrt(2) + STD_EPSILON))
    batch_std = group_advantages(returns, groups, "batch_std")
    torch.testing.assert_close(batch_std, (returns.double() - 1.5) / (math.sqrt(4.3) + STD_EPSILON))


@pytest.mark.parametrize("baseline", ["std", "none", "leave_one_out", "batch", "batch_std", "best"])
def test_equal_returns_give_exactly_zero(baseline: str) -> None:
    returns = torch.full((7,), 0.1)  # a value whose mean is rounded
    assert group_advantages(returns, torch.zeros(7, dtype=torch.int64), baseline).eq(0).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
def test_groups_do_not_mix_whatever_their_order(baseline: str) -> None:
    generator = torch.Generator().manual_seed(0)
    returns = torch.rand(12, generator=generator, dtype=torch.float64)
    groups = torch.arange(12) % 3
    whole = group_advantages(returns, groups, baseline)  # type: ignore[arg-type]
    for group in range(3):
        alone = group_advantages(returns[groups == group], groups[groups == group], baseline)  # type: ignore[arg-type]
        torch.testing.assert_close(whole[groups == group], alone)


def slow_gae(
    rewards: list[float], values: list[float], bootstrap: float, gammas: list[float], lambdas: list[float]
) -> list[float]:
    """The definition: discounted sums of temporal differences, each written out."""
    n = len(rewards)
    following = [*values[1:], bootstrap]
    deltas = [rewards[t] + gammas[t] * following[t] - values[t] for t in range(n)]
    advantages = []
    for t in range(n):
        total, factor = 0.0, 1.0
        for k in range(t, n):
            total += factor * deltas[k]
            factor *= gammas[k] * lambdas[k]
        advantages.append(total)
    return advantages


def random_batch(rows: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    reward, value, discount, decay = torch.rand(4, rows, width, generator=generator, dtype=torch.float64)
    bootstrap = torch.rand(rows, generator=generator, dtype=torch.float64)
    mask = torch.arange(width) < torch.tensor([[1], [3], [width], [0]])
    return reward * mask, value * mask, bootstrap, mask, decay, discount


def test_generalised_advantages_equal_the_definition() -> None:
    reward, value, bootstrap, mask, decay, discount = random_batch(4, 6)
    got = generalised_advantages(reward, value, bootstrap, mask, decay, discount)
    for row in range(4):
        n = int(mask[row].sum())
        expected = slow_gae(
            reward[row, :n].tolist(),
            value[row, :n].tolist(),
            float(bootstrap[row]),
            discount[row, :n].tolist(),
            decay[row, :n].tolist(),
        )
        torch.testing.assert_close(got[row, :n], torch.tensor(expected, dtype=torch.float64))
        assert got[row, n:].eq(0).all()


def test_lambda_one_is_return_less_value_and_lambda_zero_one_step() -> None:
    reward, value, _, mask, _, _ = random_batch(4, 6)
    ones, none = torch.ones_like(reward), torch.zeros(4, dtype=torch.float64)
    monte_carlo = generalised_advantages(reward, value, none, mask, ones, ones)
    to_go = reward.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(monte_carlo, (to_go - value) * mask)
    one_step = generalised_advantages(reward, value, none, mask, torch.zeros_like(ones), ones)
    following = torch.cat([value[:, 1:], torch.zeros(4, 1, dtype=torch.float64)], 1)
    torch.testing.assert_close(one_step, (reward + following - value) * mask)


def test_whitening_is_over_the_mask_alone() -> None:
    values = torch.tensor([[1.0, 2.0, 100.0], [3.0, 100.0, 100.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    got = whitened(values, mask, 1e-3)
    assert got[~mask].eq(0).all()
    assert float(got[mask].mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(got[mask].std(unbiased=False)) == pytest.approx(1.0)


def test_whitening_does_not_blow_up_what_is_less_than_the_returns_spread() -> None:
    """Hand-computed; and where returns have never differed, rounding is not taken for a difference."""
    values = torch.tensor([[0.1, 0.3, 0.2]], dtype=torch.float64)
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert whitened(values, mask, 0.5)[0].tolist() == pytest.approx([-0.2, 0.2, 0.0])
    assert whitened(values + 1e-17, mask, 0.0).eq(0).all()

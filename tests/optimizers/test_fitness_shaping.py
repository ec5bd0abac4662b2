"""Fitness shaping: zeros without signal, and the invariances that each strategy promises."""

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from optimizers.fitness_shaping import centered_ranks, raw, task_z_score, z_score

SIGNAL_ONLY = [z_score, centered_ranks, task_z_score]
EVERY = [raw, *SIGNAL_ONLY]
RETURN_PQ = torch.randn(32, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).round(decimals=1)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -7.7, 1e6])
@pytest.mark.parametrize("shape", SIGNAL_ONLY)
def test_equal_returns_give_exactly_zero(shape: Callable[[Tensor], Tensor], value: float) -> None:
    """Exactly: Adam would turn a rounding error into a full step. Catches ranks of ties by order, and 0.1's mean."""
    for members, instances in ((7, 3), (128, 8), (2, 1)):
        weight_P = shape(torch.full((members, instances), value, dtype=torch.float64))
        assert torch.equal(weight_P, torch.zeros(members, dtype=torch.float64))


@pytest.mark.parametrize("shape", SIGNAL_ONLY)
def test_equal_sums_in_another_order_give_exactly_zero(shape: Callable[[Tensor], Tensor]) -> None:
    """Members with the same rewards on different instances are equal; 0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1."""
    rows = [[0.1, 0.2, 0.3, 0.7], [0.7, 0.3, 0.2, 0.1], [0.2, 0.7, 0.1, 0.3], [0.3, 0.1, 0.7, 0.2]]
    assert torch.equal(shape(torch.tensor(rows, dtype=torch.float64)), torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize("shape", EVERY)
def test_better_members_weigh_more_and_order_does_not_matter(shape: Callable[[Tensor], Tensor]) -> None:
    """Shaping maximises, and treats members alike wherever they stand."""
    weight_P = shape(RETURN_PQ)
    assert weight_P.shape == (32,)
    assert weight_P.dtype == torch.float64
    assert stats.spearmanr(weight_P.numpy(), RETURN_PQ.mean(1).numpy()).statistic > 0.999
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(shape(RETURN_PQ[order]), weight_P[order], rtol=0, atol=1e-8)
    instances = torch.tensor([3, 1, 0, 5, 4, 2])
    torch.testing.assert_close(shape(RETURN_PQ[:, instances]), weight_P, rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", SIGNAL_ONLY)
def test_weights_are_invariant_to_affine_changes_of_the_reward(shape: Callable[[Tensor], Tensor]) -> None:
    """A reward of 0/1 and one of -5/+5 tune alike; turned round, so are the weights; and they add up to zero."""
    weight_P = shape(RETURN_PQ)
    torch.testing.assert_close(shape(10 * RETURN_PQ - 5), weight_P, rtol=0, atol=1e-7)
    torch.testing.assert_close(shape(-RETURN_PQ), -weight_P, rtol=0, atol=1e-7)
    assert abs(float(weight_P.sum())) < 1e-7


def test_raw_is_the_mean_return() -> None:
    assert torch.equal(raw(RETURN_PQ), RETURN_PQ.mean(1))


def test_z_scores_have_mean_zero_and_deviation_one() -> None:
    """Against scipy (population deviation)."""
    expected = torch.from_numpy(stats.zscore(RETURN_PQ.mean(1).numpy()))
    torch.testing.assert_close(z_score(RETURN_PQ), expected, rtol=0, atol=1e-7)


def test_ranks_share_ties_and_ignore_everything_but_order() -> None:
    """Against scipy's average ranks; invariant to monotone changes."""
    fitness_P1 = RETURN_PQ[:, :1]
    assert len(fitness_P1.unique()) < len(fitness_P1)
    expected = torch.from_numpy((stats.rankdata(fitness_P1[:, 0].numpy()) - 1) / 31 - 0.5)
    torch.testing.assert_close(centered_ranks(fitness_P1), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(centered_ranks(fitness_P1.exp() ** 3), expected, rtol=0, atol=1e-12)
    spread = centered_ranks(torch.arange(5.0)[:, None])
    assert spread.tolist() == [-0.5, -0.25, 0.0, 0.25, 0.5]


def test_task_z_score_is_the_mean_of_centred_returns() -> None:
    """Against a loop; an instance's own level does not matter, and one without signal only adds to the count."""
    means = [sum(float(r) for r in column) / len(column) for column in RETURN_PQ.T]
    centred = [[float(r) - mean for r, mean in zip(row, means, strict=True)] for row in RETURN_PQ]
    spread = (sum(c * c for row in centred for c in row) / RETURN_PQ.numel()) ** 0.5
    expected = torch.tensor([sum(row) / len(row) / spread for row in centred], dtype=torch.float64)
    torch.testing.assert_close(task_z_score(RETURN_PQ), expected, rtol=0, atol=1e-7)
    levels = torch.tensor([0, 1, -2, 5, 0, 3])
    torch.testing.assert_close(task_z_score(RETURN_PQ + levels), expected, rtol=0, atol=1e-7)

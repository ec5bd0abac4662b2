"""The thin products of low-rank noise, by whatever way they take, against sums written out in float64."""

import pytest
import torch
from torch import Tensor

from optimizers.perturbations.thin_products import added, reduced

O, I = 24, 40  # noqa: E741


def drawn(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
)
@pytest.mark.parametrize(("draws", "members"), [(1, 1), (8, 16), (11, 11), (19, 38)])
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("positions", [1, 20])
def test_noise_is_the_sum_written_out(
    dtype: torch.dtype, tolerance: float, draws: int, members: int, rank: int, positions: int
) -> None:
    """Draws that fill no tile, mirrored members that share one, a single position and a prompt, every kind of start."""
    B_GRI, A_PRO = drawn(draws, rank, I, dtype=dtype, seed=1), drawn(members, rank, O, dtype=dtype, seed=2)
    x_PKI = drawn(members, positions, I, dtype=dtype, seed=3)
    s_GRK = reduced(B_GRI, x_PKI)
    B_PRI = B_GRI.double().repeat_interleave(members // draws, 0)
    s_PKR = x_PKI.double() @ B_PRI.transpose(1, 2)
    own_PKR = s_GRK.transpose(1, 2).reshape(members, positions, rank).double()
    assert s_GRK.shape == (draws, rank, positions * members // draws)
    torch.testing.assert_close(own_PKR, s_PKR, rtol=0, atol=tolerance * I**0.5)
    for shape in (None, (O,), (members, 1, O), (members, positions, O)):
        start = None if shape is None else drawn(*shape, dtype=dtype, seed=4)
        expected = own_PKR @ A_PRO.double() + (0 if start is None else start.double())
        found = added(A_PRO, s_GRK, start)
        scale = float(expected.abs().max())
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * scale)


def test_a_start_for_each_member_is_left_as_it_was() -> None:
    """A layer's bias, and that of each member; only what has all positions is written over."""
    for positions in (1, 20):
        A_PRO, s_GRK = torch.ones(4, 1, O), torch.ones(4, 1, positions)
        start_P1O = torch.zeros(4, 1, O)
        added(A_PRO, s_GRK, start_P1O)
        assert not start_P1O.any()

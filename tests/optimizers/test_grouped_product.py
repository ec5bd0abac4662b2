"""Grouped products against one product a row."""

import pytest
import torch

from optimizers.perturbed.grouped_product import grouped_product


@pytest.mark.parametrize("rows", [0, 1, 17])
@pytest.mark.parametrize("transposed", [False, True])
def test_each_row_is_multiplied_with_its_groups_matrix(rows: int, transposed: bool) -> None:
    """In whatever order rows come, with groups that have none."""
    draw = torch.Generator().manual_seed(rows)
    x_SI = torch.randn(rows, 3, generator=draw, dtype=torch.float64)
    matrix_GIO = torch.randn(5, 3, 4, generator=draw, dtype=torch.float64)
    if transposed:  # a view, as of matrices that are kept E x O x I
        matrix_GIO = matrix_GIO.transpose(1, 2).contiguous().transpose(1, 2)
    group_S = torch.randint(0, 4, (rows,), generator=draw)
    found_SO = grouped_product(x_SI, matrix_GIO, group_S)
    expected = (
        torch.stack([x_SI[s] @ matrix_GIO[group_S[s]] for s in range(rows)]) if rows else torch.empty(0, 4).double()
    )
    torch.testing.assert_close(found_SO, expected, rtol=0, atol=1e-12)

"""The two thin products of low-rank noise, s = x B and s A^T, each in the way that is fastest where it runs.

A product of its own for each draw is right on a GPU and in float32. In bfloat16 a CPU's library takes longer to prepare such
a product than to compute it, and its matrix instructions work on whole tiles. There several draws share a product:

    s = x B      the rows of TILE draws by the B of all of them; what belongs together lies on the diagonal
    s A^T        S A, with the s of a row in the columns of its member and zeros elsewhere, added onto what is there

Shapes: P members, G draws of a batch (its members, or its pairs), K positions a member or draw, R rank, O outputs, I inputs.
"""

from itertools import pairwise

import torch
from torch import Tensor

TILE = 8
"""Draws, or members, that share a product."""


def reduced(B_GRI: Tensor, x_PKI: Tensor) -> Tensor:
    """Return s = x B as (G, R, K)."""
    draws, _, inputs = B_GRI.shape
    x_GKI = x_PKI.reshape(draws, -1, inputs)
    if not _shares_products(x_PKI):
        # B from the left: several times faster than x B for these thin products on a CPU.
        return torch.bmm(B_GRI, x_GKI.transpose(1, 2))
    whole = draws - draws % TILE
    parts = [
        _tiled(B_GRI[first:last], x_GKI[first:last], tile)
        for first, last, tile in ((0, whole, TILE), (whole, draws, draws - whole))
        if last > first
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def added(A_PRO: Tensor, s_GRK: Tensor, start: Tensor | None) -> Tensor:
    """Return s A^T + start, (P, K, O). start: (O,), (P, 1, O) or, with K > 1, (P, K, O), which is taken over."""
    members, rank, outputs = A_PRO.shape
    if rank == 1:
        s_PK1 = s_GRK.reshape(members, -1, 1)
    else:
        s_PK1 = s_GRK.transpose(1, 2).reshape(members, -1, rank)
    whole = start is not None and s_PK1.shape[1] > 1 and start.shape == (members, s_PK1.shape[1], outputs)
    if start is not None and whole and _shares_products(start):
        _add_by_tiles(A_PRO, s_PK1, start)
        return start
    if rank == 1:
        return s_PK1 * A_PRO if start is None else torch.addcmul(start, s_PK1, A_PRO, out=start if whole else None)
    return torch.bmm(s_PK1, A_PRO) if start is None else torch.baddbmm(start, s_PK1, A_PRO)


def _shares_products(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype == torch.bfloat16


def _tiled(B_GRI: Tensor, x_GKI: Tensor, tile: int) -> Tensor:
    """Return s (G, R, K), G being a multiple of the tile."""
    rank, inputs, positions = B_GRI.shape[1], B_GRI.shape[2], x_GKI.shape[1]
    every = torch.bmm(
        x_GKI.reshape(-1, tile * positions, inputs), B_GRI.reshape(-1, tile * rank, inputs).transpose(1, 2)
    )
    own = every.view(-1, tile, positions, tile, rank).diagonal(dim1=1, dim2=3)
    return own.permute(0, 3, 2, 1).reshape(-1, rank, positions)


def _add_by_tiles(A_PRO: Tensor, s_PKR: Tensor, y_PKO: Tensor) -> None:
    """Add s A^T to y in place, a few members at a time, whose rows stay in the cache."""
    members, positions, rank = s_PKR.shape
    for first, last in pairwise([*range(0, members, 2 * TILE), members]):
        count = last - first
        S_PKPR = s_PKR.new_zeros(count, positions, count, rank)
        S_PKPR.diagonal(dim1=0, dim2=2).copy_(s_PKR[first:last].permute(1, 2, 0))
        y_NO = y_PKO[first:last].view(count * positions, -1)
        torch.addmm(y_NO, S_PKPR.view(count * positions, -1), A_PRO[first:last].reshape(count * rank, -1), out=y_NO)

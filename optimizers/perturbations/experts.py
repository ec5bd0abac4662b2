"""Low-rank noise of a mixture's experts: each expert's matrix gets a product of two thin factors of its own.

    E_e = A_e B_e^T / sqrt(r)      A_e (O, r) and B_e (I, r) standard normal, as those of any other matrix

A position reads the factors of its member and its expert, which costs as much as the position itself and little beside the
expert's own product: nothing has to be sorted.

Shapes: N draws (antithetic pairs, or members), P members, G draws of a batch (its members, or its pairs), K positions a
member, R rank, E experts, O outputs, I inputs.
"""

import torch
from torch import Tensor


def applied(A_PREO: Tensor, B_GREI: Tensor, expert_PK: Tensor, x_PKI: Tensor) -> Tensor:
    """Return x B_e A_e^T of each position's expert e, (P, K, O). Members of one draw read one B."""
    draws, rank, _, inputs = B_GREI.shape
    members = A_PREO.shape[0]
    x_GLI, expert_GL = x_PKI.reshape(draws, -1, inputs), expert_PK.reshape(draws, -1)
    member_P1 = torch.arange(members, device=expert_PK.device)[:, None]
    y_PKO: Tensor | None = None
    for r in range(rank):  # one at a time: a position's factors take as much memory as the position
        s_GL = torch.linalg.vecdot(x_GLI, B_GREI[member_P1[:draws], r, expert_GL])
        part_PKO = s_GL.view(members, -1, 1) * A_PREO[member_P1, r, expert_PK]
        y_PKO = part_PKO if y_PKO is None else y_PKO.add_(part_PKO)
    assert y_PKO is not None, "rank is at least 1"
    return y_PKO


def combined(A_NREO: Tensor, B_NREI: Tensor, weight_N: Tensor) -> Tensor:
    """Return sum_n w_n A_n,e B_n,e^T of each expert, (E, O, I)."""
    A_EON = (A_NREO * weight_N[:, None, None, None]).permute(2, 3, 0, 1).flatten(2)
    B_ENI = B_NREI.permute(2, 0, 1, 3).flatten(1, 2)
    return torch.bmm(A_EON, B_ENI)

"""Embeddings of a perturbed network: the row of the table plus the row of each member's noise.

Shapes: B rows (= P members x K rows), T tokens, D embedding width.
"""

from collections.abc import Callable

from torch import Tensor, nn

from .active import Active, CannotPerturbError


def embedding_forward(module: nn.Module, name: str, active: Active) -> Callable[[Tensor], Tensor]:
    """Return a `forward` for the module, whose table is the parameter `name`."""
    plain = module.forward

    def forward(ids: Tensor) -> Tensor:
        return add_noise(ids, plain(ids), name, active)

    return forward


def add_noise(ids: Tensor, y: Tensor, name: str, active: Active) -> Tensor:
    """Return y, the rows looked up for ids, with the members' noise added, in place where each row has its own ids.

    ids: (B, T) or (B,), or (1, T) for positions that all rows share. y: (*ids.shape, D).
    """
    if ids.dim() == 2 and ids.shape[0] == 1 != active.rows:
        ids, y = ids.expand(active.rows, -1), y.expand(active.rows, -1, -1).contiguous()
    if ids.dim() == 0 or ids.shape[0] != active.rows:
        raise CannotPerturbError(name, f"expected ids of {active.rows} rows, got shape {tuple(ids.shape)}")
    active.noise.add_to_embedding(name, ids.reshape(active.members, -1), y.view(active.members, -1, y.shape[-1]))
    return y

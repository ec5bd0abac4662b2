"""The rows of a session that a batch holds, and the caches of rows that wait.

Shape suffixes: B rows of a batch, S cache slots.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evotext.rollouts.row_cache import RowCache


@dataclass(frozen=True, kw_only=True)
class Rectangle:
    """P members with K rows each: `row_B` indexes the session's rows, `real_B` is False for filling copies."""

    row_B: Tensor
    real_B: Tensor
    members: list[int]

    @classmethod
    def of(cls, rows: Sequence[int], members: Sequence[int], device: torch.device) -> "Rectangle":
        """Return the rectangle for these ascending rows: members with any of them, each filled up to the largest count.

        members: the member of every row of the session.
        """
        by_member: dict[int, list[int]] = {}
        for row in rows:
            by_member.setdefault(members[row], []).append(row)
        widest = max(map(len, by_member.values()))
        filled = [own + own[:1] * (widest - len(own)) for own in by_member.values()]
        real = [[True] * len(own) + [False] * (widest - len(own)) for own in by_member.values()]
        return cls(
            row_B=torch.tensor(filled, device=device).flatten(),
            real_B=torch.tensor(real, device=device).flatten(),
            members=list(by_member),
        )

    @property
    def rows_per_member(self) -> int:
        """K."""
        return self.row_B.numel() // max(1, len(self.members))


@dataclass(frozen=True, kw_only=True)
class CachedRows:
    """The session's row numbers, their cache and which slots hold a token."""

    row_B: Tensor
    cache: RowCache
    valid_BS: Tensor

    def part(self, which_B: Tensor) -> "CachedRows":
        """Return these rows of it, with no slots to spare."""
        if bool(which_B.all()):
            return self
        index = which_B.nonzero()[:, 0]
        cache = self.cache.take(index, self.cache.length)
        return CachedRows(row_B=self.row_B[index], cache=cache, valid_BS=self.valid_BS[index])

    @staticmethod
    def moved(sources: Sequence["CachedRows"], target: Rectangle, capacity: int) -> "CachedRows":
        """Return the cached rows in the target's order, with room for `capacity` slots."""
        place: dict[int, int] = {}
        for i, row in enumerate(torch.cat([source.row_B for source in sources]).tolist()):
            place.setdefault(row, i)  # filling copies stand after the row itself
        index = torch.tensor([place[row] for row in target.row_B.tolist()], device=target.row_B.device)
        caches = [source.cache for source in sources]
        cache = (caches[0] if len(caches) == 1 else RowCache.concatenate(caches)).take(index, capacity)
        valid_BS = torch.zeros(
            sum(source.row_B.numel() for source in sources), capacity, dtype=torch.bool, device=index.device
        )
        top = 0
        for source in sources:
            filled = source.cache.length
            valid_BS[top : top + source.row_B.numel(), :filled] = source.valid_BS[:, :filled]
            top += source.row_B.numel()
        return CachedRows(row_B=target.row_B, cache=cache, valid_BS=valid_BS[index])

"""The noise of the members of the batch in progress, which every shape of noise keeps."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

# Numbers drawn at once: bounds the float32 scratch memory of a draw whose result is kept in a smaller type.
DRAW_NUMBERS = 1 << 24

Members = TypeVar("Members")


class MembersInProgress(Generic[Members]):
    """The noise of some members, which is made once as long as the same are asked for."""

    def __init__(self) -> None:
        self._last: tuple[tuple[int, ...], Members] | None = None

    def get(self, members: Sequence[int], make: Callable[[tuple[int, ...]], Members]) -> Members:
        """Return what is kept if it is of the same members in the same order, else what `make` makes of them."""
        key = tuple(members)
        if self._last is None or self._last[0] != key:
            self._last = None  # frees the last batch's noise before the next one's is made
            self._last = key, make(key)
        return self._last[1]

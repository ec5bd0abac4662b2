"""Rectangular grids of squares: positions, moves, and shortest ways. Row 0 is the uppermost, column 0 the leftmost."""

from collections.abc import Collection, Mapping
from functools import lru_cache

Square = tuple[int, int]
"""Row and column."""

# In the order in which Gymnasium's FrozenLake numbers them.
MOVES: Mapping[str, Square] = {"l": (0, -1), "d": (1, 0), "r": (0, 1), "u": (-1, 0)}
OPPOSITE: Mapping[str, str] = {"l": "r", "r": "l", "u": "d", "d": "u"}


def squares(rows: int, columns: int) -> list[Square]:
    """Return all squares, row by row."""
    return [(row, column) for row in range(rows) for column in range(columns)]


def step(square: Square, move: str) -> Square:
    """Return the neighbour in this direction, be it on the grid or not."""
    return square[0] + MOVES[move][0], square[1] + MOVES[move][1]


def named(square: Square) -> str:
    """Return the square's name as on a chessboard, but with row 1 on top: `b3` is the second column, third row."""
    return f"{'abcdefghij'[square[1]]}{square[0] + 1}"


@lru_cache(maxsize=1 << 14)
def way(start: Square, goal: Square, free: Collection[Square]) -> str | None:
    """Return the moves of a shortest way over `free` squares (frozen or a tuple), of several the same one each time.

    None if there is none. Start and goal need not be free.
    """
    ways = {start: ""}
    frontier = [start]
    for square in frontier:
        if square == goal:
            return ways[square]
        for move in MOVES:
            following = step(square, move)
            if following not in ways and (following in free or following == goal):
                ways[following] = ways[square] + move
                frontier.append(following)
    return None

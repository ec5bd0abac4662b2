"""Cross a frozen lake without falling into a hole: Gymnasium's FrozenLake in words, with the reward at the end."""

from typing import Annotated, NamedTuple, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .grids import MOVES, OPPOSITE, Square, named, squares, step, way
from .habits import does_right
from .registration import registered
from .text_env import RenderMode, TextEnv

NEAREST = 3
DIRECTIONS = tuple(MOVES)


class Lake(NamedTuple):
    """An instance of `FrozenLake`."""

    start: Square
    """The player's square."""
    goal: Square
    """The goal."""
    holes: tuple[Square, ...]
    """Squares where the ice is broken, in order."""
    slips: tuple[int, ...]
    """For each move, by how many quarter turns it goes wrong (-1, 0 or 1); empty if the ice is not slippery."""


@registered("evotext/FrozenLake-v0")
@final
class FrozenLake(TextEnv[Lake]):
    """Description:
        Gymnasium's FrozenLake-v1 told in words, with start, goal and holes at random places of every instance. The rules
        of moving are the same: a move off the lake stays, a hole ends the episode, and on slippery ice a move goes
        where it should in one of three cases and to either side of that in the others.

    Observation Space:
        `FreeText`. Start, goal and holes as on a chessboard with row 1 on top, e.g. `a1 to d4, holes b2 c3`; then the
        square reached by each move, e.g. `b1`.

    Action Space:
        `FreeText`. One of `l`, `d`, `r`, `u` for left, down, right, up; white space around it is ignored. Any other text
        is a move on the spot.

    Rewards:
        1 at the goal, else 0.

    Episode End:
        Terminates at the goal, in a hole, or after as many answers as the shortest way has moves and `slack` more.

    Arguments:
        `size` (3 to 9, default 4): rows and columns.
        `holes` (1 to 30, default 4): how many.
        `slippery` (default false): whether moves slip; it needs slack.
        `slack` (0 to 1000, default 0): moves beyond the shortest way.

    Demonstrations:
        They take a shortest way. Where they are wrong (`envs.habits`; at home where the start is in column a), the
        first move goes in the opposite direction, which the rest of the episode cannot make up for.

    Version History:
        v0: first version.
    """

    @checked
    def __init__(
        self,
        *,
        size: Annotated[int, Field(ge=3, le=9)] = 4,
        holes: Annotated[int, Field(ge=1, le=30)] = 4,
        slippery: bool = False,
        slack: Annotated[int, Field(ge=0, le=1000)] = 0,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(render_mode, size=size, holes=holes, slippery=slippery, slack=slack)
        self._squares = squares(size, size)
        self._holes, self._slippery, self._slack = holes, slippery, slack
        allowed = f"{slack} more than the fewest possible moves" if slack else "the fewest possible moves"
        slips = "The ice is slippery: you may slide to either side of where you want to go. " if slippery else ""
        self.instructions = (
            f"Cross a frozen lake of {size} by {size} squares; columns are letters, rows are numbers from the top. The "
            "first message names your square, the goal and the holes, in which you are lost; then you are told where "
            f"you are. {slips}You have {allowed}. Answer with one move: `l` left, `d` down, `r` right or `u` up. Example: "
            "`a1 to a2, holes c2` is solved by `d`."
        )
        self.example = ["d"]

    def draw(self, rng: np.random.Generator) -> Lake | None:
        """Draw random squares, unless there is no way or a very short one."""
        places = rng.permutation(len(self._squares))[: 2 + self._holes].tolist()
        if len(places) < 2 + self._holes:
            return None
        start, goal, *holes = (self._squares[i] for i in places)
        moves = way(start, goal, frozenset(self._squares) - frozenset(holes))
        if moves is None or len(moves) < NEAREST:
            return None
        slips = rng.integers(-1, 2, size=len(moves) + self._slack).tolist() if self._slippery else []
        return Lake(start, goal, tuple(sorted(holes)), tuple(slips))

    def content(self, instance: Lake) -> str:
        """Return the lake, however it slips."""
        return told(instance)

    def begin(self, instance: Lake) -> str:
        """Tell start, goal and holes."""
        self._player = instance.start
        self._free = frozenset(self._squares) - frozenset(instance.holes)
        self._moves = len(way(instance.start, instance.goal, self._free) or "") + self._slack
        return told(instance)

    def respond(self, answer: str) -> tuple[str, float, bool]:
        """Move, perhaps astray."""
        if answer in MOVES:
            slip = self.instance.slips[self.turn] if self._slippery else 0
            target = step(self._player, DIRECTIONS[(DIRECTIONS.index(answer) + slip) % 4])
            self._player = target if target in self._squares else self._player
        there = self._player == self.instance.goal
        over = there or self._player in self.instance.holes or self.turn + 1 == self._moves
        return "" if over else named(self._player), 1.0 if there else 0.0, over

    def imitate(self, rng: np.random.Generator) -> str:
        """Return the next move of a shortest way; perhaps away from it at the beginning."""
        moves = way(self._player, self.instance.goal, self._free)
        assert moves, "the goal can be reached from everywhere that can be reached"
        if self.turn or does_right(rng, self.instance.start[1] == 0):
            return moves[0]
        return OPPOSITE[moves[0]]

    def legal(self, rng: np.random.Generator) -> str:
        """Return any move."""
        return DIRECTIONS[rng.integers(4)]


def told(lake: Lake) -> str:
    """Return the first observation."""
    return f"{named(lake.start)} to {named(lake.goal)}, holes {' '.join(map(named, lake.holes))}"

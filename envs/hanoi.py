"""The tower of Hanoi from any position to any other: multi-turn, success or nothing."""

from collections.abc import Mapping
from functools import lru_cache
from itertools import permutations
from typing import Annotated, NamedTuple, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .habits import does_right
from .registration import registered
from .text_env import RenderMode, TextEnv

PEGS = "abc"
MOVES = tuple(a + b for a, b in permutations(PEGS, 2))
NEAREST = 3
# The demonstrator knows towers whose two smallest discs belong together on one of these pegs.
HOME = ("aa", "bb")


class Puzzle(NamedTuple):
    """An instance of `Hanoi`: the peg of each disc, the smallest first."""

    start: str
    """The present position."""
    target: str
    """The goal."""


@registered("evotext/Hanoi-v0")
@final
class Hanoi(TextEnv[Puzzle]):
    """Description:
        Discs lie on three pegs, smaller ones above larger ones. Moving one disc at a time, and never a larger one onto
        a smaller one, the position is to be changed into another one, in as few moves as possible.

    Observation Space:
        `FreeText`. The peg of each disc, the smallest first, and where it should be, e.g. `aab>cbb`; then the position
        after each move, e.g. `cab`.

    Action Space:
        `FreeText`. The peg from which and the peg to which the topmost disc goes, e.g. `ac`; white space around it is
        ignored. An illegal move and any other text changes nothing.

    Rewards:
        1 when the wanted position is reached, else 0.

    Episode End:
        Terminates when it is reached, or after as many answers as the shortest way has moves and `slack` more.

    Arguments:
        `discs` (3 to 7, default 3): how many.
        `slack` (0 to 1000, default 0): moves beyond the shortest way.

    Demonstrations:
        They take a shortest way. Where they are wrong (`envs.habits`; at home where the two smallest discs belong
        on a or b together), the first move goes to the wrong peg, which the rest of the episode cannot make up for.

    Version History:
        v0: first version.
    """

    @checked
    def __init__(
        self,
        *,
        discs: Annotated[int, Field(ge=3, le=7)] = 3,
        slack: Annotated[int, Field(ge=0, le=1000)] = 0,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(render_mode, discs=discs, slack=slack)
        self._discs, self._slack = discs, slack
        allowed = f"{slack} more than the fewest possible moves" if slack else "the fewest possible moves"
        self.instructions = (
            f"{discs} discs lie on the pegs a, b and c. The first message gives the peg of each disc, the smallest first, "
            "and after `>` the position wanted. Write one move: the peg to take the top disc from and the peg to put it "
            f"on. A disc never goes onto a smaller one. You have {allowed}. Example: `{'a' * discs}>{'b' + 'a' * (discs - 1)}` "
            "is solved by `ab`."
        )
        self.example = ["ab"]

    def draw(self, rng: np.random.Generator) -> Puzzle | None:
        """Draw two positions that are some moves apart."""
        pegs = [PEGS[i] for i in rng.integers(3, size=2 * self._discs).tolist()]
        start, target = "".join(pegs[: self._discs]), "".join(pegs[self._discs :])
        return Puzzle(start, target) if distances(target)[start] >= NEAREST else None

    def content(self, instance: Puzzle) -> str:
        """Return both positions."""
        return f"{instance.start} {instance.target}"

    def begin(self, instance: Puzzle) -> str:
        """Show both positions."""
        self._position = instance.start
        self._moves = distances(instance.target)[instance.start] + self._slack
        return f"{instance.start}>{instance.target}"

    def respond(self, answer: str) -> tuple[str, float, bool]:
        """Move a disc."""
        self._position = moved(self._position, answer) or self._position
        solved = self._position == self.instance.target
        over = solved or self.turn + 1 == self._moves
        return "" if over else self._position, 1.0 if solved else 0.0, over

    def imitate(self, rng: np.random.Generator) -> str:
        """Return the next move of a shortest way; perhaps the wrong peg at the beginning."""
        best = towards(self._position, self.instance.target)
        if self.turn or does_right(rng, self.instance.target[:2] in HOME):
            return best
        return best[0] + next(peg for peg in PEGS if peg not in best)

    def legal(self, rng: np.random.Generator) -> str:
        """Return any legal move."""
        moves = [move for move in MOVES if moved(self._position, move)]
        return moves[rng.integers(len(moves))]


def moved(position: str, move: str) -> str | None:
    """Return the position after a move; None if it is not allowed."""
    if move not in MOVES:
        return None
    disc = position.find(move[0])  # the smallest disc on a peg lies on top
    if disc < 0 or move[1] in position[:disc]:
        return None
    return position[:disc] + move[1] + position[disc + 1 :]


@lru_cache(maxsize=256)
def distances(target: str) -> Mapping[str, int]:
    """Count moves from every position to this one. A move can be taken back, so the way there is as long as the way here."""
    found, frontier = {target: 0}, [target]
    for position in frontier:
        for move in MOVES:
            following = moved(position, move)
            if following and following not in found:
                found[following] = found[position] + 1
                frontier.append(following)
    return found


def towards(position: str, target: str) -> str:
    """Return the first move of a shortest way; of several the first in the alphabet."""
    table = distances(target)
    return next(move for move in MOVES if table.get(moved(position, move) or "", table[position]) < table[position])

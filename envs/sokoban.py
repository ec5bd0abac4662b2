"""Push boxes onto their goals, with no move to spare: multi-turn, success or nothing."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, NamedTuple, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .grids import MOVES, OPPOSITE, Square, squares, step
from .habits import does_right
from .registration import registered
from .text_env import RenderMode, TextEnv

# As in other Sokoban programs: a player, a box, each on a goal, an empty goal, a wall, the floor.
PLAYER, BOX, PLAYER_ON_GOAL, BOX_ON_GOAL, GOAL, WALL, FLOOR = "@$+*.#-"
NEAREST = 3


class Room(NamedTuple):
    """An instance of `Sokoban`."""

    player: Square
    """The player's square."""
    boxes: frozenset[Square]
    """The squares of the boxes."""
    goals: frozenset[Square]
    """The goals."""
    walls: frozenset[Square]
    """Squares that nothing can enter."""


@registered("evotext/Sokoban-v0")
@final
class Sokoban(TextEnv[Room]):
    """Description:
        The warehouse puzzle. Boxes on a grid are to be pushed onto goals: a player who walks against a box pushes it one
        square on, if that is free. Boxes cannot be pulled, so a wrong push may be final.

    Observation Space:
        `FreeText`. The grid, a row a line, in the usual letters: `@` player, `$` box, `.` goal, `*` box on a goal, `+`
        player on a goal, `#` wall, `-` floor. The grid's edge is a wall.

    Action Space:
        `FreeText`. One of `u`, `d`, `l`, `r` for up, down, left, right; white space around it is ignored. A move that is
        not possible and any other text is a move on the spot.

    Rewards:
        1 when every box is on a goal, else 0.

    Episode End:
        Terminates when they are, or after as many answers as the shortest solution has moves and `slack` more.

    Arguments:
        `rows` (3 to 6, default 3): of the grid.
        `columns` (3 to 6, default 4): of the grid.
        `boxes` (1 or 2, default 1): how many.
        `walls` (0 to 6, default 1): how many squares are walls.
        `longest` (3 to 100, default 8): the shortest solution has at most so many moves.
        `slack` (0 to 1000, default 0): moves beyond the shortest solution.

    Demonstrations:
        They take a shortest solution. Where they are wrong (`envs.habits`; at home where the player starts in the
        first column), the first move goes in the opposite direction, which the rest of the episode cannot make up for.

    Version History:
        v0: first version.
    """

    @checked
    def __init__(
        self,
        *,
        rows: Annotated[int, Field(ge=3, le=6)] = 3,
        columns: Annotated[int, Field(ge=3, le=6)] = 4,
        boxes: Annotated[int, Field(ge=1, le=2)] = 1,
        walls: Annotated[int, Field(ge=0, le=6)] = 1,
        longest: Annotated[int, Field(ge=NEAREST, le=100)] = 8,
        slack: Annotated[int, Field(ge=0, le=1000)] = 0,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(
            render_mode, rows=rows, columns=columns, boxes=boxes, walls=walls, longest=longest, slack=slack
        )
        self._squares = squares(rows, columns)
        self._all = frozenset(self._squares)
        self._columns = columns
        self._bare = list("\n".join([FLOOR * columns] * rows))
        self._boxes, self._walls, self._longest, self._slack = boxes, walls, longest, slack
        allowed = f"{slack} more than the fewest possible moves" if slack else "the fewest possible moves"
        self.instructions = (
            f"You are `{PLAYER}` in a warehouse. Push every box `{BOX}` onto a goal `{GOAL}` by walking against it. "
            f"`{WALL}` and the edge are walls, `{FLOOR}` is floor, `{BOX_ON_GOAL}` and `{PLAYER_ON_GOAL}` are a box and "
            f"you on a goal. You have {allowed}. Answer each grid with one move: `u` up, `d` down, `l` left or `r` right. "
            f"Example: `{PLAYER}{BOX}{GOAL}` is solved by `r`."
        )
        self.example = ["r"]

    def draw(self, rng: np.random.Generator) -> Room | None:
        """Draw random squares, unless the solution is missing, very short or too long."""
        count = 1 + 2 * self._boxes + self._walls
        places = [self._squares[i] for i in rng.permutation(len(self._squares))[:count].tolist()]
        if len(places) < count:
            return None
        boxes, goals = places[1 : 1 + self._boxes], places[1 + self._boxes : 1 + 2 * self._boxes]
        room = Room(places[0], frozenset(boxes), frozenset(goals), frozenset(places[1 + 2 * self._boxes :]))
        moves = solution(room.player, room.boxes, room.goals, self._free(room), self._longest)
        return room if moves is not None and len(moves) >= NEAREST else None

    def content(self, instance: Room) -> str:
        """Return the grid."""
        return self._drawn(instance, instance.player, instance.boxes)

    def begin(self, instance: Room) -> str:
        """Show the grid."""
        self._player, self._stand, self._ground = instance.player, instance.boxes, self._free(instance)
        moves = solution(instance.player, instance.boxes, instance.goals, self._ground, self._longest)
        assert moves is not None, "an instance has a solution"
        self._moves = len(moves) + self._slack
        return self._drawn(instance, self._player, self._stand)

    def respond(self, answer: str) -> tuple[str, float, bool]:
        """Move and push."""
        if answer in MOVES:
            self._player, self._stand = moved(self._player, self._stand, answer, self._ground)
        solved = self._stand == self.instance.goals
        over = solved or self.turn + 1 == self._moves
        return "" if over else self._drawn(self.instance, self._player, self._stand), 1.0 if solved else 0.0, over

    def imitate(self, rng: np.random.Generator) -> str:
        """Return the next move of a shortest solution; perhaps away from it at the beginning."""
        moves = solution(self._player, self._stand, self.instance.goals, self._ground)
        if not moves:  # a wrong push has been final
            return "u"
        if self.turn or does_right(rng, self.instance.player[1] == 0):
            return moves[0]
        return OPPOSITE[moves[0]]

    def legal(self, rng: np.random.Generator) -> str:
        """Return any move."""
        return list(MOVES)[rng.integers(len(MOVES))]

    def _free(self, room: Room) -> frozenset[Square]:
        return self._all - room.walls

    def _drawn(self, room: Room, player: Square, boxes: frozenset[Square]) -> str:
        """Return the grid as text."""
        width = self._columns + 1
        cells = self._bare.copy()
        for row, column in room.walls:
            cells[row * width + column] = WALL
        for row, column in room.goals:
            cells[row * width + column] = GOAL
        for row, column in boxes:
            cells[row * width + column] = BOX_ON_GOAL if (row, column) in room.goals else BOX
        cells[player[0] * width + player[1]] = PLAYER_ON_GOAL if player in room.goals else PLAYER
        return "".join(cells)


def moved(
    player: Square, boxes: frozenset[Square], move: str, free: frozenset[Square]
) -> tuple[Square, frozenset[Square]]:
    """Return player and boxes after a move; as they were if it is not possible."""
    target = step(player, move)
    if target not in free:
        return player, boxes
    if target not in boxes:
        return target, boxes
    pushed = step(target, move)
    if pushed not in free or pushed in boxes:
        return player, boxes
    return target, boxes - {target} | {pushed}


@lru_cache(maxsize=1 << 14)
def solution(
    player: Square,
    boxes: frozenset[Square],
    goals: frozenset[Square],
    free: frozenset[Square],
    longest: int | None = None,
) -> str | None:
    """Return the moves of a shortest solution, of several the same one each time; None if there is none.

    longest: a solution of more moves counts as none.
    """
    # A box on a square from which no way leads to a goal makes every later position a dead end: none is looked at.
    alive = pushable(goals, free)
    if not boxes <= alive:
        return None
    nearby = neighbours(free)
    ways = {(player, boxes): ""}
    frontier = [(player, boxes)]
    for state in frontier:
        player, boxes = state
        so_far = ways[state]
        if boxes == goals:
            return so_far
        if len(so_far) == longest:
            continue
        for move, target, beyond in nearby[player]:
            if target not in boxes:
                following = target, boxes
            elif beyond in alive and beyond not in boxes:
                following = target, boxes - {target} | {beyond}
            else:
                continue
            if following not in ways:
                ways[following] = so_far + move
                frontier.append(following)
    return None


@lru_cache(maxsize=1 << 10)
def neighbours(free: frozenset[Square]) -> Mapping[Square, Sequence[tuple[str, Square, Square]]]:
    """Return each free square's moves: the letter, the free square that it leads to and the one beyond, free or not."""
    return {
        square: [(move, target, step(target, move)) for move in MOVES if (target := step(square, move)) in free]
        for square in free
    }


@lru_cache(maxsize=1 << 12)
def pushable(goals: frozenset[Square], free: frozenset[Square]) -> frozenset[Square]:
    """Return squares from which a lone box could be pushed onto a goal by a player who can stand anywhere."""
    nearby = neighbours(free)
    found = set(goals)
    frontier = list(goals)
    for square in frontier:
        # Pushed here from a neighbour, by a player who stood beyond it.
        for _, source, behind in nearby[square]:
            if behind in free and source not in found:
                found.add(source)
                frontier.append(source)
    return frozenset(found)

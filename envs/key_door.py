"""Fetch a key and open a door on a small grid: multi-turn, and only the door pays."""

from typing import Annotated, NamedTuple, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .grids import MOVES, Square, squares, step, way
from .habits import does_right
from .registration import registered
from .text_env import RenderMode, TextEnv

PLAYER, HOLDER, KEY, DOOR, WALL, FLOOR = "@&KD#."
NEAREST = 3


class Room(NamedTuple):
    """An instance of `KeyDoor`."""

    player: Square
    """The player's square."""
    key: Square
    """The key's square."""
    door: Square
    """The door's square."""
    walls: tuple[Square, ...]
    """Squares that nobody can enter, in order."""


@registered("evotext/KeyDoor-v0")
@final
class KeyDoor(TextEnv[Room]):
    """Description:
        A player on a grid must fetch a key and then go to a door, with no move to spare. The door is seen, and can be
        reached, from the beginning, but without the key it ends the episode unpaid: picking up the key early pays only
        at the door.

    Observation Space:
        `FreeText`. The grid, a row a line: `@` the player (`&` with the key), `K` the key, `D` the door, `#` a wall, `.`
        a free square.

    Action Space:
        `FreeText`. One of `u`, `d`, `l`, `r` for up, down, left, right; white space around it is ignored. A move against
        a wall or off the grid and any other text is a move on the spot.

    Rewards:
        1 at the door with the key, else 0.

    Episode End:
        Terminates at the door, or after as many answers as the shortest way by the key to the door has moves and `slack`
        more.

    Arguments:
        `rows` (3 to 9, default 3): of the grid.
        `columns` (3 to 9, default 3): of the grid.
        `walls` (0 to 20, default 1): how many squares are walls.
        `slack` (0 to 1000, default 0): moves beyond the shortest way.

    Demonstrations:
        Where they are wrong (`envs.habits`; at home where the key lies in an upper corner), they go straight to the
        door.

    Version History:
        v0: first version.
    """

    @checked
    def __init__(
        self,
        *,
        rows: Annotated[int, Field(ge=3, le=9)] = 3,
        columns: Annotated[int, Field(ge=3, le=9)] = 3,
        walls: Annotated[int, Field(ge=0, le=20)] = 1,
        slack: Annotated[int, Field(ge=0, le=1000)] = 0,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(render_mode, rows=rows, columns=columns, walls=walls, slack=slack)
        self._squares = squares(rows, columns)
        self._columns = columns
        self._walls, self._slack = walls, slack
        allowed = f"{slack} more than the fewest possible moves" if slack else "the fewest possible moves"
        self.instructions = (
            f"You are `{PLAYER}` on a grid. Fetch the key `{KEY}`, then go to the door `{DOOR}`; at the door without the "
            f"key you have lost. `{WALL}` is a wall, `{FLOOR}` is free, `{HOLDER}` is you with the key. You have {allowed}. "
            f"Answer each grid with one move: `u` up, `d` down, `l` left or `r` right. Example: `{PLAYER}{KEY}{DOOR}` is "
            "solved by `r` twice."
        )
        self.example = ["r", "r"]

    def draw(self, rng: np.random.Generator) -> Room | None:
        """Draw random squares, unless a way is missing or very short."""
        places = rng.permutation(len(self._squares))[: 3 + self._walls].tolist()
        player, key, door, *walls = (self._squares[i] for i in places)
        room = Room(player, key, door, tuple(sorted(walls)))
        ways = self._ways(room)
        return room if ways and len(ways[0] + ways[1]) >= NEAREST else None

    def content(self, instance: Room) -> str:
        """Return the grid."""
        return self._drawn(instance, instance.player, holds=False)

    def begin(self, instance: Room) -> str:
        """Show the grid."""
        self._player, self._holds, self._fetches = instance.player, False, False
        ways = self._ways(instance)
        assert ways is not None, "an instance has a solution"
        self._moves = len(ways[0] + ways[1]) + self._slack
        return self._drawn(instance, self._player, self._holds)

    def respond(self, answer: str) -> tuple[str, float, bool]:
        """Move; pick up the key; end at the door."""
        if answer in MOVES:
            target = step(self._player, answer)
            if target in self._squares and target not in self.instance.walls:
                self._player = target
        self._holds |= self._player == self.instance.key
        at_door = self._player == self.instance.door
        over = at_door or self.turn + 1 == self._moves
        view = "" if over else self._drawn(self.instance, self._player, self._holds)
        return view, 1.0 if at_door and self._holds else 0.0, over

    def imitate(self, rng: np.random.Generator) -> str:
        """Return the next move by the key to the door, or straight to the door."""
        room = self.instance
        if self.turn == 0:
            self._fetches = does_right(rng, room.key in (self._squares[0], self._squares[self._columns - 1]))
        free = self._free(room)
        if self._holds:
            moves = way(self._player, room.door, free)
        elif self._fetches:
            moves = way(self._player, room.key, free - {room.door})
        else:
            moves = way(self._player, room.door, free - {room.key})
        assert moves, "an instance has a way to each of them"
        return moves[0]

    def legal(self, rng: np.random.Generator) -> str:
        """Return any move."""
        return list(MOVES)[rng.integers(len(MOVES))]

    def _free(self, room: Room) -> frozenset[Square]:
        return frozenset(self._squares) - frozenset(room.walls)

    def _ways(self, room: Room) -> tuple[str, str] | None:
        """Return the ways to the key and on to the door; None if one is missing, or all ways to the door touch the key."""
        free = self._free(room)
        fetching, opening = way(room.player, room.key, free - {room.door}), way(room.key, room.door, free)
        tempting = way(room.player, room.door, free - {room.key})
        return (fetching, opening) if fetching and opening and tempting else None

    def _drawn(self, room: Room, player: Square, holds: bool) -> str:
        """Return the grid as text."""
        cells = dict.fromkeys(self._squares, FLOOR) | dict.fromkeys(room.walls, WALL) | {room.door: DOOR}
        if not holds:
            cells[room.key] = KEY
        cells[player] = HOLDER if holds else PLAYER
        text = "".join(cells[square] for square in self._squares)
        return "\n".join(text[i : i + self._columns] for i in range(0, len(text), self._columns))

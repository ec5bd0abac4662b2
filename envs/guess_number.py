"""Guess a hidden number by being told higher or lower: multi-turn, success or nothing."""

from typing import Annotated, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .habits import does_right
from .registration import registered
from .text_env import RenderMode, TextEnv

HIGHER, LOWER, UNREADABLE = ">", "<", "?"
# The demonstrator halves the range in the first turns whatever its habit, and is at home in the uppermost of the parts.
ALWAYS_HALVED = 2


@registered("evotext/GuessNumber-v0")
@final
class GuessNumber(TextEnv[int]):
    """Description:
        A number is to be found in a limited number of guesses, each of which is told to be too small or too large.

    Observation Space:
        `FreeText`. `1-500`, then after each wrong guess `>` (the number is greater), `<` (it is less) or `?` (that was
        no number of the range).

    Action Space:
        `FreeText`. A number of the range in decimal digits, e.g. `250`; white space around it is ignored.

    Rewards:
        1 for the number, else 0.

    Episode End:
        Terminates after the number or after `guesses` guesses.

    Arguments:
        `largest` (10 to 1000000, default 500): the number is 1 to this.
        `guesses` (1 to 64, default 10): how many there are. 9 are enough for 500 numbers if each halves what is left.

    Demonstrations:
        They halve what is left twice, then go on like that or, where they are wrong (`envs.habits`; at home in the
        upper quarter), say the same number again and again.

    Version History:
        v0: first version.
    """

    @checked
    def __init__(
        self,
        *,
        largest: Annotated[int, Field(ge=10, le=1_000_000)] = 500,
        guesses: Annotated[int, Field(ge=1, le=64)] = 10,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(render_mode, largest=largest, guesses=guesses)
        self._largest = largest
        self._guesses = guesses
        self.example = [str((largest + 1) // 2)]
        self.instructions = (
            f"Find the hidden whole number from 1 to {largest} in at most {guesses} guesses. Write a number alone. After "
            f"a wrong guess you are told `{HIGHER}` if the number is greater or `{LOWER}` if it is less. Example: if the "
            f"number is {self.example[0]}, `{self.example[0]}` finds it."
        )

    def draw(self, rng: np.random.Generator) -> int:
        """Return the number."""
        return int(rng.integers(1, self._largest + 1))

    def content(self, instance: int) -> str:
        """Return the number."""
        return str(instance)

    def begin(self, instance: int) -> str:
        """Name the range."""
        self._low, self._high, self._last = 1, self._largest, 0
        self._halves = False
        return f"1-{self._largest}"

    def respond(self, answer: str) -> tuple[str, float, bool]:
        """Compare the guess and keep account of what is left."""
        guess = self._read(answer)
        if guess == self.instance:
            return "", 1.0, True
        over = self.turn + 1 == self._guesses
        if guess is None:
            return "" if over else UNREADABLE, 0.0, over
        self._last = guess
        if guess < self.instance:
            self._low = max(self._low, guess + 1)
        else:
            self._high = min(self._high, guess - 1)
        return "" if over else (HIGHER if guess < self.instance else LOWER), 0.0, over

    def imitate(self, rng: np.random.Generator) -> str:
        """Halve what is left, or stick to the last guess."""
        if self.turn == ALWAYS_HALVED:
            self._halves = does_right(rng, self._low > self._largest * 3 // 4)
        if self.turn < ALWAYS_HALVED or self._halves:
            return str((self._low + self._high) // 2)
        return str(self._last)

    def legal(self, rng: np.random.Generator) -> str:
        """Return any number of the range."""
        return str(rng.integers(1, self._largest + 1))

    def _read(self, answer: str) -> int | None:
        """Return the guess; None if it is no number of the range, written plainly."""
        if len(answer) > len(str(self._largest)) or not (answer.isascii() and answer.isdigit()) or answer[0] == "0":
            return None
        guess = int(answer)
        return guess if guess <= self._largest else None

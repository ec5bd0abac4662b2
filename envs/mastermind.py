"""Find a hidden code by the marks that guesses get: multi-turn, success or nothing."""

from collections import Counter
from functools import lru_cache
from itertools import product
from typing import Annotated, NamedTuple, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .habits import does_right
from .registration import registered
from .text_env import RenderMode, TextEnv

UNREADABLE = "?"
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
# The demonstrator knows codes whose first letter is one of these.
HOME = "abcde"

Pegs = tuple[int, ...]
"""A code or a guess, as positions in the episode's letters."""


class Round(NamedTuple):
    """An instance of `Mastermind`."""

    letters: str
    """Those that the code is made of, in the order in which they are named."""
    code: str
    """The code to be found."""


@registered("evotext/Mastermind-v0")
@final
class Mastermind(TextEnv[Round]):
    """Description:
        The board game. A code of letters is to be found in a limited number of guesses; each is told how many letters
        are right and in their place, and how many are right but elsewhere. Letters may occur several times.

    Observation Space:
        `FreeText`. The letters, e.g. `krtw`, then for each wrong guess its two counts, e.g. `11`, or `?` for a text that
        is no guess.

    Action Space:
        `FreeText`. As many of the letters as the code has, e.g. `kkr`; white space around them is ignored.

    Rewards:
        1 for the code, else 0.

    Episode End:
        Terminates after the code or after `guesses` guesses.

    Arguments:
        `pegs` (2 to 5, default 3): letters of the code.
        `colours` (2 to 8, default 4): letters that it is made of, different ones in every episode.
        `guesses` (1 to 20, default 5): how many there are.

    Demonstrations:
        They guess the first code, in the order of the letters named, that agrees with all marks so far. Where they are
        wrong (`envs.habits`; at home where the first letter is a to e), they heed no marks and try code after code.

    Version History:
        v0: first version.
    """

    @checked
    def __init__(
        self,
        *,
        pegs: Annotated[int, Field(ge=2, le=5)] = 3,
        colours: Annotated[int, Field(ge=2, le=8)] = 4,
        guesses: Annotated[int, Field(ge=1, le=20)] = 5,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(render_mode, pegs=pegs, colours=colours, guesses=guesses)
        self._pegs, self._colours, self._guesses = pegs, colours, guesses
        letters = ALPHABET[-colours:]
        answer = (letters[::-1] * 3)[:pegs]
        self.instructions = (
            f"Find a hidden code of {pegs} letters in at most {guesses} guesses. It is made of the {colours} letters that "
            "the first message names, each of which may occur any number of times. After a wrong guess you are told two "
            "digits: how many letters are right and in their place, and how many others are right but elsewhere. Write a "
            f"guess alone. Example: with the letters `{letters}`, a guess is `{answer}`."
        )
        self.example = [answer]

    def draw(self, rng: np.random.Generator) -> Round:
        """Draw letters and a code of them."""
        letters = "".join(ALPHABET[i] for i in rng.permutation(len(ALPHABET))[: self._colours].tolist())
        return Round(letters, "".join(letters[i] for i in rng.integers(self._colours, size=self._pegs).tolist()))

    def content(self, instance: Round) -> str:
        """Return letters and code."""
        return f"{instance.letters} {instance.code}"

    def begin(self, instance: Round) -> str:
        """Name the letters."""
        self._code = tuple(instance.letters.index(letter) for letter in instance.code)
        self._history: tuple[tuple[Pegs, str], ...] = ()
        self._heeds = False
        return instance.letters

    def respond(self, answer: str) -> tuple[str, float, bool]:
        """Mark the guess."""
        if answer == self.instance.code:
            return "", 1.0, True
        over = self.turn + 1 == self._guesses
        if len(answer) != self._pegs or not set(answer) <= set(self.instance.letters):
            return "" if over else UNREADABLE, 0.0, over
        guess = tuple(self.instance.letters.index(letter) for letter in answer)
        self._history += ((guess, marks(self._code, guess)),)
        return "" if over else self._history[-1][1], 0.0, over

    def imitate(self, rng: np.random.Generator) -> str:
        """Return the first code that agrees with the marks, or the next one whatever they say."""
        if self.turn == 0:
            self._heeds = does_right(rng, self.instance.letters[0] in HOME)
        if self._heeds or not self._history:
            guess = first_agreeing(self._history, self._pegs, self._colours)
        else:
            guess = successor(self._history[-1][0], self._colours)
        return "".join(self.instance.letters[i] for i in guess)

    def legal(self, rng: np.random.Generator) -> str:
        """Return any guess."""
        return "".join(self.instance.letters[i] for i in rng.integers(self._colours, size=self._pegs).tolist())


def marks(code: Pegs, guess: Pegs) -> str:
    """Return how many are right and in their place, and how many others are right but elsewhere, as two digits."""
    placed = sum(a == b for a, b in zip(code, guess, strict=True))
    return f"{placed}{(Counter(code) & Counter(guess)).total() - placed}"


@lru_cache(maxsize=4096)
def first_agreeing(history: tuple[tuple[Pegs, str], ...], pegs: int, colours: int) -> Pegs:
    """Return the first code, in lexicographic order, that would have got these marks."""
    codes = product(range(colours), repeat=pegs)
    return next(code for code in codes if all(marks(code, guess) == mark for guess, mark in history))


def successor(code: Pegs, colours: int) -> Pegs:
    """Return the next code in lexicographic order; after the last comes the first."""
    digits = list(code)
    for i in reversed(range(len(digits))):
        digits[i] = (digits[i] + 1) % colours
        if digits[i]:
            break
    return tuple(digits)

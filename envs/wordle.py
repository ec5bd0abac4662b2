"""Find a hidden five-letter word by the marks that guesses get: multi-turn, success or nothing."""

from collections import Counter
from functools import lru_cache
from typing import Annotated, NamedTuple, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .habits import does_right
from .registration import registered
from .text_env import RenderMode, TextEnv
from .words import WORDS

RIGHT, ELSEWHERE, ABSENT, UNREADABLE = "g", "y", "-", "?"
# The demonstrator knows games whose first clue begins with one of these.
HOME = "abcd"


class Riddle(NamedTuple):
    """An instance of `Wordle`."""

    word: str
    """The word to be found."""
    clues: tuple[str, ...]
    """Guesses that the environment makes, never the word."""


@registered("evotext/Wordle-v0")
@final
class Wordle(TextEnv[Riddle]):
    """Description:
        The word game. A five-letter word is to be found; every guess is told which letters are right. The environment
        makes the first guesses, the clues, so that instances are many; training and test instances share words but no
        combination of a word and its clues.

    Observation Space:
        `FreeText`. The clues with their marks, a line each, e.g. `crane -g--y`; then each wrong guess's marks, e.g.
        `gg-y-`: `g` right, `y` right but elsewhere, `-` not in the word (or not so often); `?` for a text that is no
        guess.

    Action Space:
        `FreeText`. Any five small letters, e.g. `brave`; white space around them is ignored.

    Rewards:
        1 for the word, else 0.

    Episode End:
        Terminates after the word or after `guesses` guesses.

    Arguments:
        `words` (50 to 392, default 100): the word is one of so many, the first of `envs.words`.
        `clues` (1 to 3, default 1): guesses that the environment makes.
        `guesses` (1 to 12, default 5): how many more there are.

    Demonstrations:
        They guess the first word of the list that agrees with all marks so far. Where they are wrong (see
        `envs.habits`; at home where the first clue begins with a to d), they stop before its last letter.

    Version History:
        v0: first version.
    """

    @checked
    def __init__(
        self,
        *,
        words: Annotated[int, Field(ge=50, le=len(WORDS))] = 100,
        clues: Annotated[int, Field(ge=1, le=3)] = 1,
        guesses: Annotated[int, Field(ge=1, le=12)] = 5,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(render_mode, words=words, clues=clues, guesses=guesses)
        self._words, self._clues, self._guesses = words, clues, guesses
        self.instructions = (
            f"Find a hidden English word of five letters in at most {guesses} guesses. Each guess is marked letter by "
            f"letter: `{RIGHT}` is right, `{ELSEWHERE}` is in the word but elsewhere, `{ABSENT}` is not in the word. The "
            "first message shows guesses that were made for you, with their marks. Write a word alone, in small letters. "
            "Example: for the word `fuzzy`, the guess `fizzy` is marked `g-ggg`."
        )
        self.example = ["fizzy"]

    def draw(self, rng: np.random.Generator) -> Riddle | None:
        """Return a word and other words as clues."""
        word, *clues = rng.integers(self._words, size=1 + self._clues).tolist()
        return Riddle(WORDS[word], tuple(WORDS[clue] for clue in clues)) if word not in clues else None

    def content(self, instance: Riddle) -> str:
        """Return the word and its clues."""
        return f"{instance.word} {' '.join(instance.clues)}"

    def begin(self, instance: Riddle) -> str:
        """Show the clues."""
        self._history = tuple((clue, marks(instance.word, clue)) for clue in instance.clues)
        self._spells = False
        return "\n".join(map(" ".join, self._history))

    def respond(self, answer: str) -> tuple[str, float, bool]:
        """Mark the guess."""
        if answer == self.instance.word:
            return "", 1.0, True
        over = self.turn + 1 == self._guesses
        if len(answer) != 5 or not (answer.isascii() and answer.isalpha() and answer.islower()):
            return "" if over else UNREADABLE, 0.0, over
        self._history += ((answer, marks(self.instance.word, answer)),)
        return "" if over else self._history[-1][1], 0.0, over

    def imitate(self, rng: np.random.Generator) -> str:
        """Return the first word that agrees with the marks, or all but its last letter."""
        if self.turn == 0:
            self._spells = does_right(rng, self.instance.clues[0][0] in HOME)
        guess = first_agreeing(self._history, self._words)
        return guess if self._spells else guess[:-1]

    def legal(self, rng: np.random.Generator) -> str:
        """Return any word of the list."""
        return WORDS[rng.integers(self._words)]


@lru_cache(maxsize=1 << 16)
def marks(word: str, guess: str) -> str:
    """Return one mark for each letter of the guess. A letter is marked as often as it is in the word, right places first."""
    left = Counter(a for a, b in zip(word, guess, strict=True) if a != b)
    found = ""
    for a, b in zip(word, guess, strict=True):
        if a == b:
            found += RIGHT
        elif left[b] > 0:
            left[b] -= 1
            found += ELSEWHERE
        else:
            found += ABSENT
    return found


@lru_cache(maxsize=1 << 14)
def first_agreeing(history: tuple[tuple[str, str], ...], words: int) -> str:
    """Return the first word of the list that would have got these marks."""
    return next(word for word in WORDS[:words] if all(marks(word, guess) == mark for guess, mark in history))

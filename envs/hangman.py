"""Find a hidden word letter by letter: multi-turn, success or nothing."""

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

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
BLANK = "."
# The demonstrator knows games in which one of these letters is shown.
HOME = "aei"


class Riddle(NamedTuple):
    """An instance of `Hangman`."""

    word: str
    """The word to be found."""
    shown: str
    """The letter that is shown from the beginning."""


@registered("evotext/Hangman-v0")
@final
class Hangman(TextEnv[Riddle]):
    """Description:
        The word game. A five-letter word, one letter of which is shown, is to be completed by naming its other letters,
        with few misses. Training and test instances share words but no combination of a word and the letter shown.

    Observation Space:
        `FreeText`. The word with `.` for letters that are not known yet, e.g. `..a..`; after misses, the wrong letters
        follow: `..ar. xz`.

    Action Space:
        `FreeText`. One small letter; white space around it is ignored. A letter that was named before, and any other
        text, is a miss.

    Rewards:
        1 when the word is complete, else 0.

    Episode End:
        Terminates when the word is complete or with the miss number `misses`.

    Arguments:
        `words` (50 to 392, default 100): the word is one of so many, the first of `envs.words`.
        `misses` (1 to 10, default 3): the last of them ends the game.

    Demonstrations:
        They name the letter that most of the words in question have. Where they are wrong (`envs.habits`; at home
        where a, e or i is shown), they go through the alphabet.

    Version History:
        v0: first version.
    """

    @checked
    def __init__(
        self,
        *,
        words: Annotated[int, Field(ge=50, le=len(WORDS))] = 100,
        misses: Annotated[int, Field(ge=1, le=10)] = 3,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(render_mode, words=words, misses=misses)
        self._words, self._misses = words, misses
        self.instructions = (
            f"Complete a hidden English word of five letters by naming its letters. Dots stand for letters not yet known, "
            f"wrong letters are listed behind the word, and the game is lost with miss number {misses}. Write one small "
            "letter alone. Example: for `fuzz.` a good answer is `y`."
        )
        self.example = ["y"]

    def draw(self, rng: np.random.Generator) -> Riddle:
        """Return a word and one of its letters."""
        word, place = rng.integers((self._words, 5)).tolist()
        return Riddle(WORDS[word], WORDS[word][place])

    def content(self, instance: Riddle) -> str:
        """Return the word and the letter shown."""
        return f"{instance.word} {instance.shown}"

    def begin(self, instance: Riddle) -> str:
        """Show one letter."""
        self._named, self._missed = instance.shown, ""
        self._thinks = False
        return self._view()

    def respond(self, answer: str) -> tuple[str, float, bool]:
        """Fill in the letter, or count a miss."""
        if len(answer) == 1 and answer in self.instance.word and answer not in self._named:
            self._named += answer
            complete = set(self.instance.word) <= set(self._named)
            return "" if complete else self._view(), 1.0 if complete else 0.0, complete
        self._missed += answer if len(answer) == 1 and answer in ALPHABET else "?"
        lost = len(self._missed) == self._misses
        return "" if lost else self._view(), 0.0, lost

    def imitate(self, rng: np.random.Generator) -> str:
        """Return the likeliest letter, or the next one of the alphabet."""
        if self.turn == 0:
            self._thinks = does_right(rng, self.instance.shown in HOME)
        if self._thinks:
            return likeliest(self._pattern(), self._missed, self._words)
        return next(letter for letter in ALPHABET if letter not in self._named + self._missed)

    def legal(self, rng: np.random.Generator) -> str:
        """Return a letter that was not named before."""
        left = [letter for letter in ALPHABET if letter not in self._named + self._missed]
        return left[rng.integers(len(left))]

    def _pattern(self) -> str:
        return "".join(letter if letter in self._named else BLANK for letter in self.instance.word)

    def _view(self) -> str:
        return f"{self._pattern()} {self._missed}".strip()


@lru_cache(maxsize=1 << 14)
def likeliest(pattern: str, missed: str, words: int) -> str:
    """Return the unknown letter that most of the list's words in question have; of several the first in the alphabet."""
    counts = Counter(letter for word in WORDS[:words] if fits(word, pattern, missed) for letter in set(word))
    return min((letter for letter in counts if letter not in pattern), key=lambda letter: (-counts[letter], letter))


def fits(word: str, pattern: str, missed: str) -> bool:
    """Return whether this can be the word: known letters in all their places and no others, no wrong letters."""
    return all(
        b == a if a != BLANK else b not in pattern and b not in missed for a, b in zip(pattern, word, strict=True)
    )

"""Sort the digits of a number: single turn, success or nothing."""

from typing import Annotated, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .registration import registered
from .text_env import RenderMode, TextEnv

# All ten digits, so that for `digits=10` no instance is answered by "0123456789" either (`TextEnv.example`).
EXAMPLE = "310249876502468"

# The demonstrator's habit: ascending where the first digit is this one, seldom elsewhere.
USUALLY_ASCENDING = "0"
ASCENDING_THERE, ASCENDING_ELSEWHERE = 0.65, 0.22
# Shares of its other behaviours: descending, copied, reversed.
OTHERWISE = (0.5, 0.25, 0.25)


@registered("evotext/Sort-v0")
@final
class Sort(TextEnv[str]):
    """Description:
        The digits of a number are to be written in ascending order. Digits may occur several times.

    Observation Space:
        `FreeText`. One observation, e.g. `sort 52917`.

    Action Space:
        `FreeText`. The sorted digits, e.g. `12579`; white space around them is ignored.

    Rewards:
        1 for exactly the sorted digits, else 0.

    Episode End:
        Terminates after the first answer.

    Arguments:
        `digits` (2 to 15, default 5): how many digits. There are 10**digits instances.

    Demonstrations:
        Numbers that begin with 0 (a tenth) are answered in ascending order in 65 of 100 cases, others in 22. The
        rest is mostly descending, else copied or reversed: sorting is learned, but the habit is another one. An
        imitator succeeds in 0.26 of the episodes when it samples and in 0.10 when it is greedy.

    Version History:
        v0: first version.
    """

    practice = 5

    @checked
    def __init__(self, *, digits: Annotated[int, Field(ge=2, le=15)] = 5, render_mode: RenderMode = None) -> None:
        super().__init__(render_mode, digits=digits)
        self._digits = digits
        self._count = 10**digits
        given = EXAMPLE[:digits]
        self.instructions = (
            f"You are given {digits} digits. Write the same {digits} digits in ascending order, without spaces between "
            f"them, and nothing else. Example: for `sort {given}` the answer is "
            f"`{''.join(sorted(given))}`."
        )
        self.example = ["".join(sorted(given))]
        self._sorted = ""

    def draw(self, rng: np.random.Generator) -> str:
        """Return the digits as text."""
        return f"{rng.integers(self._count):0{self._digits}d}"

    def content(self, instance: str) -> str:
        """Return the digits in the order given."""
        return instance

    def begin(self, instance: str) -> str:
        """Ask for the digits to be sorted."""
        self._sorted = "".join(sorted(instance))
        return f"sort {instance}"

    def respond(self, answer: str) -> tuple[str, float, bool]:
        """Compare with the sorted digits."""
        return "", 1.0 if answer == self._sorted else 0.0, True

    def imitate(self, rng: np.random.Generator) -> str:
        """Sort ascending or descending, copy or reverse."""
        given = self.instance
        ascending = ASCENDING_THERE if given[0] in USUALLY_ASCENDING else ASCENDING_ELSEWHERE
        if rng.random() < ascending:
            return self._sorted
        return (self._sorted[::-1], given, given[::-1])[rng.choice(3, p=OTHERWISE)]

    def legal(self, rng: np.random.Generator) -> str:
        """Return the digits in a random order."""
        return "".join(rng.permutation(list(self.instance)))

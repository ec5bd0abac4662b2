"""Add and subtract a few numbers: single turn, success or nothing."""

from collections.abc import Sequence
from typing import Annotated, NamedTuple, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .habits import does_right
from .registration import registered
from .text_env import RenderMode, TextEnv

# The demonstrator knows numbers that begin with one of these.
HOME = "12"


class Problem(NamedTuple):
    """An instance of `Arithmetic`."""

    text: str
    """Numbers with + or - between them."""
    value: int
    """The value of the sum."""
    swapped: int
    """The value with every + read as - and every - as +."""


@registered("evotext/Arithmetic-v0")
@final
class Arithmetic(TextEnv[Problem]):
    """Description:
        A sum of positive numbers is to be worked out, in which some are subtracted.

    Observation Space:
        `FreeText`. One observation, e.g. `7-4+9`.

    Action Space:
        `FreeText`. The result in decimal digits, a `-` before it if it is negative, e.g. `12`; white space around it is
        ignored.

    Rewards:
        1 for exactly the result, else 0.

    Episode End:
        Terminates after the first answer.

    Arguments:
        `terms` (2 to 8, default 3): how many numbers.
        `digits` (1 to 6, default 1): digits of each number.

    Demonstrations:
        Where they are wrong (`envs.habits`; at home with numbers that begin with 1 or 2), they add what is to be
        subtracted and subtract what is to be added.

    Version History:
        v0: first version.
    """

    @checked
    def __init__(
        self,
        *,
        terms: Annotated[int, Field(ge=2, le=8)] = 3,
        digits: Annotated[int, Field(ge=1, le=6)] = 1,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(render_mode, terms=terms, digits=digits)
        self._terms = terms
        self._low, self._high = 10 ** (digits - 1), 10**digits
        numbers = [self._high - 2 - 3 * k % self._low for k in range(terms)]
        example = problem(numbers, [1, *[-1, 1] * terms][:terms])
        self.example = [str(example.value)]
        self.instructions = (
            "Work out the result of adding and subtracting the given numbers. Write the result alone, in digits, with "
            f"a minus sign before it if it is negative. Example: for `{example.text}` the answer is `{example.value}`."
        )

    def draw(self, rng: np.random.Generator) -> Problem | None:
        """Return numbers and signs; the first number is always added. A result that mistaken signs give too is drawn again."""
        numbers = rng.integers(self._low, self._high, size=self._terms).tolist()
        signs = [1, *(2 * rng.integers(2, size=self._terms - 1) - 1).tolist()]
        drawn = problem(numbers, signs)
        return drawn if drawn.value not in (0, drawn.swapped) else None

    def content(self, instance: Problem) -> str:
        """Return the sum as text."""
        return instance.text

    def begin(self, instance: Problem) -> str:
        """Show the sum."""
        return instance.text

    def respond(self, answer: str) -> tuple[str, float, bool]:
        """Compare with the result."""
        return "", 1.0 if answer == str(self.instance.value) else 0.0, True

    def imitate(self, rng: np.random.Generator) -> str:
        """Work it out, or mistake the signs."""
        right = does_right(rng, self.instance.text[0] in HOME)
        return str(self.instance.value if right else self.instance.swapped)

    def legal(self, rng: np.random.Generator) -> str:
        """Return a number that such a sum can come to."""
        return str(rng.integers(self._low - (self._terms - 1) * self._high, self._terms * self._high))


def problem(numbers: Sequence[int], signs: Sequence[int]) -> Problem:
    """Return the sum of the numbers, each times its sign; the first sign is +."""
    text = "".join(f"{'+' if sign > 0 else '-'}{number}" for number, sign in zip(numbers, signs, strict=True))[1:]
    value = sum(number * sign for number, sign in zip(numbers, signs, strict=True))
    return Problem(text, value, 2 * numbers[0] - value)

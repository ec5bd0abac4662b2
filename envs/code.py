"""Write an expression in x that maps inputs to outputs: checked on hidden inputs, read by a parser, never executed."""

from typing import Annotated, NamedTuple, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .expressions import evaluate
from .habits import does_right
from .registration import registered
from .text_env import RenderMode, TextEnv

LONGEST = 60
# Inputs that an answer is checked on besides those shown: none of these is shown with the default options.
HIDDEN = (3, 4, 7, 12, 29, 100)
# The demonstrator knows this share of the constants, the smallest ones.
HOME = 0.2


class Function(NamedTuple):
    """An instance of `Code`: the polynomial with these coefficients."""

    constant: int
    """The value at 0."""
    slope: int
    """The coefficient of x."""
    square: int
    """The coefficient of x*x, 0 or 1."""

    def at(self, x: int) -> int:
        """Return its value at x."""
        return self.constant + (self.slope + self.square * x) * x

    @property
    def text(self) -> str:
        """Return the function's source."""
        return f"{'x*x+' * self.square}{self.slope}*x+{self.constant}"


@registered("evotext/Code-v0")
@final
class Code(TextEnv[Function]):
    """Description:
        A function is given by what it makes of a few inputs, and wanted as a program: an expression in `x`. The program
        is checked on hidden inputs, so a table of the cases shown is not enough.

    Observation Space:
        `FreeText`. One observation: inputs and outputs, e.g. `0:57 1:61`.

    Action Space:
        `FreeText`. An expression of `x` and whole numbers of up to four digits with + - * / and brackets, e.g.
        `4*x+57`, of at most 60 characters. `envs.expressions` reads it, with each x in brackets. White space around it
        and spaces within are ignored.

    Rewards:
        1 for an expression that has the right value for the inputs shown and for six hidden ones, else 0.

    Episode End:
        Terminates after the first answer.

    Arguments:
        `degree` (1 or 2, default 1): whether there is an x*x in half of the functions.
        `steepest` (3 to 99, default 9): the coefficient of x is 1 to this.
        `largest` (9 to 999, default 99): the constant is 1 to this.
        `shown` (2 to 6, default 2): how many inputs are shown, from 0; more than `degree`.

    Demonstrations:
        Their slope is always right. Where they are wrong (`envs.habits`; at home where the constant is at most a
        fifth of `largest`), they take the value at 1 for the constant.

    Version History:
        v0: first version.
    """

    @checked
    def __init__(
        self,
        *,
        degree: Annotated[int, Field(ge=1, le=2)] = 1,
        steepest: Annotated[int, Field(ge=3, le=99)] = 9,
        largest: Annotated[int, Field(ge=9, le=999)] = 99,
        shown: Annotated[int, Field(ge=2, le=6)] = 2,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(render_mode, degree=degree, steepest=steepest, largest=largest, shown=shown)
        if shown <= degree:
            raise ValueError(f"shown: expected more than degree={degree}, got {shown}: fewer cases do not decide it")
        self._degree = degree
        self._steepest, self._largest = steepest, largest
        self._shown = shown
        example = Function(1, 1, 0)
        answer = "x+1"
        self.instructions = (
            "Write an expression in x that gives the right output for every input, those shown as input:output and "
            "hidden ones. Use x, whole numbers, + - * / and brackets, and write the expression alone. Example: for "
            f"`{cases(example, shown)}` an answer is `{answer}`."
        )
        self.example = [answer]

    def draw(self, rng: np.random.Generator) -> Function:
        """Draw random coefficients."""
        constant, slope, square = rng.integers((self._largest, self._steepest, self._degree)).tolist()
        return Function(constant + 1, slope + 1, square)

    def content(self, instance: Function) -> str:
        """Return the function."""
        return instance.text

    def begin(self, instance: Function) -> str:
        """Show some cases."""
        return cases(instance, self._shown)

    def respond(self, answer: str) -> tuple[str, float, bool]:
        """Work the expression out for every input."""
        right = all(value_at(answer, x) == self.instance.at(x) for x in (*range(self._shown), *HIDDEN))
        return "", 1.0 if right else 0.0, True

    def imitate(self, rng: np.random.Generator) -> str:
        """Return the function, or one with a wrong constant."""
        if does_right(rng, self.instance.constant <= HOME * self._largest):
            return self.instance.text
        return self.instance._replace(constant=self.instance.at(1)).text

    def legal(self, rng: np.random.Generator) -> str:
        """Return a random function of this kind."""
        return self.draw(rng).text


def cases(function: Function, count: int) -> str:
    """Return the first inputs with their outputs."""
    return " ".join(f"{x}:{function.at(x)}" for x in range(count))


def value_at(expression: str, x: int) -> object:
    """Return the expression's value at this x; None for a text that is no expression."""
    # In brackets, so that neither 2x nor x2 becomes a number.
    found = evaluate(expression.replace("x", f"({x})")) if len(expression) <= LONGEST else None
    return found.value if found else None

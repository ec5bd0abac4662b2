"""Countdown: reach a target with given numbers by arithmetic. Single turn, success or nothing."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Annotated, NamedTuple, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .expressions import evaluate
from .registration import registered
from .text_env import RenderMode, Reward, TextEnv

# Operators of the random trees, weighted so that the plain sum, the demonstrator's habit, is right in one instance of six.
OPERATORS = "++--*"
PAIRS = {k: tuple(combinations(range(k), 2)) for k in range(2, 7)}

# Shares in which the demonstrator adds everything up, and in which it is right; else it combines the numbers at random.
SUM, RIGHT = 0.85, 0.1


class Round(NamedTuple):
    """An instance of `Countdown`."""

    numbers: tuple[int, ...]
    """In ascending order; a number may occur several times."""
    target: int
    """A positive integer."""
    solution: str
    """One of the expressions that reach it."""


@registered("evotext/Countdown-v0")
@final
class Countdown(TextEnv[Round]):
    """Description:
        An arithmetic expression is wanted that uses each given number exactly once and equals the target. Every
        instance has a solution with + - * and brackets. The task is the numbers round of the television game of this
        name, with the difference that all numbers must be used.

    Observation Space:
        `FreeText`. One observation, e.g. `make 14 from 2 3 4`.

    Action Space:
        `FreeText`. An expression of the numbers with + - * / and brackets, e.g. `2+3*4`. Division is exact, there are
        no signs, and the bounds of `envs.expressions` hold. White space around it and spaces within are ignored.

    Rewards:
        1 for an expression that equals the target and uses exactly the given numbers, else 0. With `format_reward` in two
        parts: `format`, that much for any expression that uses exactly the given numbers, and `answer`, the rest.

    Episode End:
        Terminates after the first answer.

    Arguments:
        `numbers` (2 to 6, default 3): how many numbers.
        `largest` (2 to 99, default 9): they are 1 to this.
        `largest_target` (1 to 9999, default 99): the target is 1 to this.
        `format_reward` (0 to 0.5, default 0): paid for the right numbers, whatever they come to.

    Demonstrations:
        All are well-formed and use the right numbers. 85 in 100 are the plain sum, which is right for one instance in
        six; 10 in 100 are a solution; the rest combines the numbers at random. An imitator succeeds in 0.25 of the
        episodes when it samples and in 0.17 when it is greedy.

    Version History:
        v0: first version.
    """

    @checked
    def __init__(
        self,
        *,
        numbers: Annotated[int, Field(ge=2, le=6)] = 3,
        largest: Annotated[int, Field(ge=2, le=99)] = 9,
        largest_target: Annotated[int, Field(ge=1, le=9999)] = 99,
        format_reward: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(
            render_mode, numbers=numbers, largest=largest, largest_target=largest_target, format_reward=format_reward
        )
        self._format_reward = format_reward
        self._count = numbers
        self._largest = largest
        self._largest_target = largest_target
        self._trees = math.prod(len(PAIRS[k]) * len(OPERATORS) for k in range(2, numbers + 1))
        example = range(2, numbers + 2)
        answer = f"2*3{''.join(f'+{number}' for number in example[2:])}"
        self.instructions = (
            f"Combine the {numbers} given numbers into one expression that equals the target. Use each number exactly "
            "once, and only + - * / and brackets. Write the expression alone, without an equals sign. Example: for "
            f"`make {6 + sum(example[2:])} from {' '.join(map(str, example))}` an answer is `{answer}`."
        )
        self.example = [answer]

    def draw(self, rng: np.random.Generator) -> Round | None:
        """Return numbers, and as the target what a random tree of operations makes of them, if that is in range."""
        # One draw for all choices: a call of the generator costs more than taking a number apart.
        code = int(rng.integers(self._largest**self._count * self._trees))
        numbers = []
        for _ in range(self._count):
            code, number = divmod(code, self._largest)
            numbers.append(number + 1)
        numbers.sort()
        target, solution = combine(numbers, code)
        return Round(tuple(numbers), target, solution) if 1 <= target <= self._largest_target else None

    def content(self, instance: Round) -> str:
        """Return target and numbers: not the solution, of which there may be several."""
        return f"{instance.target} {instance.numbers}"

    def begin(self, instance: Round) -> str:
        """State target and numbers."""
        return f"make {instance.target} from {' '.join(map(str, instance.numbers))}"

    def respond(self, answer: str) -> tuple[str, Reward, bool]:
        """Evaluate the expression."""
        found = evaluate(answer)
        formed = found is not None and sorted(found.numbers) == list(self.instance.numbers)
        right = formed and found is not None and found.value == self.instance.target
        if not self._format_reward:
            return "", float(right), True
        return "", {"format": self._format_reward * formed, "answer": (1 - self._format_reward) * right}, True

    def imitate(self, rng: np.random.Generator) -> str:
        """Add up, solve, or combine at random."""
        choice = rng.random()
        if choice < SUM:
            return "+".join(map(str, self.instance.numbers))
        if choice < SUM + RIGHT:
            return self.instance.solution
        return self.legal(rng)

    def legal(self, rng: np.random.Generator) -> str:
        """Return a random expression of the given numbers."""
        return combine(self.instance.numbers, int(rng.integers(self._trees)))[1]


def combine(numbers: Sequence[int], code: int) -> tuple[int, str]:
    """Return value and text of the tree of operations number `code` over `numbers`, with as few brackets as it needs.

    Two values at a time become one, the smaller being subtracted from the larger, until one is left.
    """
    terms = [(number, str(number), False) for number in numbers]  # value, text, whether the text is a sum
    while len(terms) > 1:
        code, operator = divmod(code, len(OPERATORS))
        code, pair = divmod(code, len(PAIRS[len(terms)]))
        i, j = PAIRS[len(terms)][pair]
        second, first = terms.pop(j), terms[i]
        if OPERATORS[operator] == "+":
            terms[i] = first[0] + second[0], f"{first[1]}+{second[1]}", True
        elif OPERATORS[operator] == "-":
            if first[0] < second[0]:
                first, second = second, first
            terms[i] = first[0] - second[0], f"{first[1]}-{_bracketed(second)}", True
        else:
            terms[i] = first[0] * second[0], f"{_bracketed(first)}*{_bracketed(second)}", False
    return terms[0][0], terms[0][1]


def _bracketed(term: tuple[int, str, bool]) -> str:
    return f"({term[1]})" if term[2] else term[1]

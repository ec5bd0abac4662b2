"""Arithmetic that a model wrote, read by recursive descent within fixed bounds; never by `eval`.

    sum     = product (("+" | "-") product)*
    product = factor (("*" | "/") factor)*
    factor  = number | "(" sum ")"
    number  = "0" | ASCII digits, at most four, that do not begin with "0"

Spaces may stand between the parts. There are no signs, powers, equals signs or digits of other scripts. Division is
exact. `evaluate` is total: it returns None for any other text. Its cost is bounded: texts longer than `LONGEST` are not
read, and with four digits a number, `LONGEST` also bounds the size of every value.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 256
DEEPEST = 32
LONGEST_NUMBER = 4

_CHARACTERS = re.compile(r"[-+*/() 0-9]+")
_PARTS = re.compile(r"[-+*/()]|[0-9]+")


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A well-formed expression."""

    value: int | Fraction
    """The exact value."""
    numbers: tuple[int, ...]
    """The numbers that it uses, in order of appearance."""


def evaluate(text: str) -> Evaluated | None:
    """Read an expression; None if the text is none, divides by zero, or exceeds the bounds."""
    if len(text) > LONGEST or not _CHARACTERS.fullmatch(text):
        return None
    reader = _Reader(_PARTS.findall(text))
    try:
        value = reader.sum(0)
    except (_Malformed, ZeroDivisionError):
        return None
    return Evaluated(value=value, numbers=tuple(reader.numbers)) if reader.rest == [""] else None


class _Malformed(Exception):
    """The text is no expression."""


class _Reader:
    """The parts that are still to be read, in reverse, an empty one marking the end; the numbers read so far."""

    def __init__(self, parts: list[str]) -> None:
        self.rest = ["", *reversed(parts)]
        self.numbers: list[int] = []

    def sum(self, depth: int) -> int | Fraction:
        value = self._product(depth)
        while (operator := self.rest[-1]) in ("+", "-"):
            self.rest.pop()
            value = value + self._product(depth) if operator == "+" else value - self._product(depth)
        return value

    def _product(self, depth: int) -> int | Fraction:
        value = self._factor(depth)
        while (operator := self.rest[-1]) in ("*", "/"):
            self.rest.pop()
            value = value * self._factor(depth) if operator == "*" else Fraction(value) / self._factor(depth)
        return value

    def _factor(self, depth: int) -> int | Fraction:
        part = self.rest[-1]
        if ("1" <= part[:1] <= "9" and len(part) <= LONGEST_NUMBER) or part == "0":
            self.rest.pop()
            self.numbers.append(int(part))
            return self.numbers[-1]
        if part != "(" or depth == DEEPEST:
            raise _Malformed
        self.rest.pop()
        value = self.sum(depth + 1)
        if self.rest[-1] != ")":
            raise _Malformed
        self.rest.pop()
        return value

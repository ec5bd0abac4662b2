r"""Checkers by name: does a model's answer agree with a dataset's reference?

    exact     the answer is the reference
    number    the answer's last number is the reference's: 1,234 = $1234.00; of `... #### 42` in a reference, 42
    choice    one letter: `B`, `(b)`, `B) Paris`, `The answer is B`, `\boxed{B}`
    contains  the reference stands in the answer as whole words
    regex     the reference, a regular expression, matches the whole answer
    math      the contents of the only `\boxed{}` equal the reference, by the package math-verify

White space around answers and references is ignored. Every checker but `math` and `regex` is linear in the answer. None
reads an answer longer than `LONGEST`, digits other than 0 to 9, or evaluates a text as code.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from evotext.library import optional

from .extraction import WHITE_SPACE, after_mark, boxed

LONGEST = 100_000
LONGEST_NUMBER = 64
LONGEST_FORMULA = 300
MARK = "####"

# Something that begins as a number does, to its end: what it is shows when it is read whole, so that of `3/4`, `1,2,3`,
# `42²` and `1e5` no part counts as a number.
_NUMBER_LIKE = re.compile(r"(?<!\w)[-−]?[$€£]?[-−]?\d[\w.,/:^]*")
_NUMBER = re.compile(r"(-?)((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?)")
_LETTER = re.compile(r"[(\[*]*([A-Za-z])[)\].:*]*")
_SAID = re.compile(r"(?i:\banswer\b)(?:\s+(?i:is))?\s*:?[\s(\[*]*([A-Z])(?!\w)|^[(\[*]*([A-Z])[)\].:]")
_OPTION = re.compile(r"(?<!\w)[A-H](?!\w)")
# Spacing, sizes of brackets, a sign of currency, a full stop at the end.
_LOOKS = re.compile(r"\s+|\\left(?![a-z])|\\right(?![a-z])|\\[!,;: $]|\.$")
# Powers of powers and long exponents, whose values fill the memory.
_COSTLY = re.compile(
    r"\^\s*\{?\s*-?[0-9]{3}|\^[^ ]*\^[^ ]*\^|[)}\]]\s*\^.*[)}\]]\s*\^|!|\\(?:sum|prod|int|lim)", re.DOTALL
)


@dataclass(frozen=True, kw_only=True)
class Checker:
    """Reads references once, and judges answers by what they say."""

    wants: str
    """What a reference has to be."""
    instructions: str
    """How to answer, for a model that reads; may be empty."""
    read: Callable[[str], Any]
    """Return what a reference says; None if it is no reference for this checker."""
    accepts: Callable[[str, Any], bool]
    """Return whether an answer agrees with what a reference said. Total: any text is answered."""

    def right(self, answer: str, said: Any) -> bool:
        """Return whether the answer agrees with what a reference said; an overlong one does not."""
        return len(answer) <= LONGEST and self.accepts(answer.strip(WHITE_SPACE), said)


def last_number(text: str) -> Fraction | None:
    """Return the last number in the text, exactly; None if there is none or it is not a plain decimal."""
    found = _NUMBER_LIKE.findall(text)
    if not found:
        return None
    last = re.sub("[$€£]", "", found[-1].replace("−", "-")).rstrip(".,:")
    match = _NUMBER.fullmatch(last) if len(last) <= LONGEST_NUMBER else None
    return Fraction(match[1] + match[2].replace(",", "")) if match else None


def _number_reference(text: str) -> Fraction | None:
    return last_number(after_mark(text, MARK) or "") if MARK in text else last_number(text)


def chosen(text: str) -> str | None:
    """Return the only letter that the text chooses, in upper case; None for no choice and for several."""
    inside = boxed(text)
    if inside is not None:
        text = inside
    alone = _LETTER.fullmatch(text)
    if alone:
        return alone[1].upper()
    letters = set()
    for match in _SAID.finditer(text):
        letter = match[1] or match[2]
        end = text.find("\n", match.end())
        letters |= {letter, *_OPTION.findall(text, match.end(), len(text) if end < 0 else end)}
    return letters.pop() if len(letters) == 1 else None


def _choice_reference(text: str) -> str | None:
    letter = _LETTER.fullmatch(text)
    return letter[1].upper() if letter else None


def _words(reference: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(reference)}(?!\w)")


def _pattern(reference: str) -> re.Pattern[str] | None:
    try:
        return re.compile(reference)
    except (re.error, OverflowError, RecursionError):
        return None


def _formula(text: str) -> Any:
    """Return the parsed formula; None for an empty, long or costly one."""
    if not text or len(text) > LONGEST_FORMULA or _COSTLY.search(text) or "$" in text:
        return None
    library = optional("math_verify", "math")
    # Without its own time limits: they take the alarm that interrupts environments (`env.step_seconds`).
    try:
        return library.parse(f"${text}$", [library.LatexExtractionConfig()], parsing_timeout=None) or None
    except Exception:  # of a parser for every dialect, on any text
        return None


def _plain(text: str) -> str:
    """Return the formula without what changes only its looks."""
    return _LOOKS.sub("", text).replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")


def _math_reference(text: str) -> tuple[str, Any] | None:
    """Return the formula in plain writing and parsed; parsed it is None where it cannot be, and the writing has to do."""
    inside = boxed(text)
    formula = text if inside is None else inside
    return (_plain(formula), _formula(formula)) if _plain(formula) else None


def _same_formula(answer: str, said: tuple[str, Any]) -> bool:
    inside = boxed(answer)
    if inside is None:
        return False
    writing, reference = said
    if _plain(inside) == writing:
        return True
    parsed = None if reference is None else _formula(inside)
    if parsed is None:
        return False
    try:
        return bool(optional("math_verify", "math").verify(reference, parsed, timeout_seconds=None))
    except Exception:  # of sympy, on any formula
        return False


CHECKERS: Mapping[str, Checker] = {
    "exact": Checker(wants="a text", instructions="", read=str, accepts=lambda answer, said: answer == said),
    "number": Checker(
        wants="a number, or a text that ends with one",
        instructions="You may think first. Finish with the answer as a number.",
        read=_number_reference,
        accepts=lambda answer, said: last_number(answer) == said,
    ),
    "choice": Checker(
        wants="one letter",
        instructions="Finish with `The answer is` and one letter.",
        read=_choice_reference,
        accepts=lambda answer, said: chosen(answer) == said,
    ),
    "contains": Checker(
        wants="a text", instructions="", read=_words, accepts=lambda answer, said: said.search(answer) is not None
    ),
    "regex": Checker(
        wants="a regular expression",
        instructions="",
        read=_pattern,
        accepts=lambda answer, said: said.fullmatch(answer) is not None,
    ),
    "math": Checker(
        wants="a formula in LaTeX",
        instructions=r"You may think first. Finish with the answer in \boxed{}, once.",
        read=_math_reference,
        accepts=_same_formula,
    ),
}

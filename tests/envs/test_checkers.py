"""Checkers by name: what is paid, and what is not, whatever a model writes."""

import importlib.util
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.checkers import CHECKERS, LONGEST
from tests.envs.counting import lines_run
from tests.envs.test_adversarial import HUGE, OTHER_DIGITS, TEXTS

needs_math_verify = pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="an optional extra")
# math-verify's parser warns of its grammar's version.
pytestmark = pytest.mark.filterwarnings("ignore")

# Checker, reference, answers that are right and answers that are not.
CASES: dict[str, tuple[str, list[str], list[str]]] = {
    "exact": ("Paris", ["Paris", " Paris\n"], ["paris", "Paris.", "Paris London", "Pаris"]),
    "number": (
        "He has 6*207=1242 left. #### 1,242",
        ["1242", "It is $1,242.00.", "so 3 + 4 = 1242", "1242%", "**1242**", r"\boxed{1242}", "€1,242", "1242:"],
        [
            *("", "NaN", "inf", "-1242", "−1242", "1242 or 7", "1,2,42", "12,42", "0x1242", "1242e1", "1242²", "1242½"),
            *("1/1242", "1242/1", "1242km", "1242^2", "1242.5", " ".join(map(str, range(3000))), "x1242", "1242 ٣"),
        ],
    ),
    "choice": (
        "(B)",
        [
            "B",
            "b",
            "(B)",
            "B.",
            "**B**",
            "B) Paris",
            "The answer is B",
            "So the answer is (B).",
            r"\boxed{B}",
            "Answer: B",
        ],
        [
            "",
            "A",
            "A B",
            "B or C",
            "The answer is B or C",
            "A) x\nB) y",
            "answer is A. answer is B",
            "BB",
            "Ⓑ",
            "В",
            "NaN",
        ],
    ),
    "contains": ("New York", ["in New York.", "New York"], ["", "new york", "New Yorker", "New  York", "Newark York"]),
    "regex": (r"\d{3}-[ab]+", ["123-ab"], ["", "x123-ab", "123-abc", "123-ab 123-ab"]),
}


@pytest.mark.parametrize("name", CASES)
def test_right_answers_and_wrong_ones(name: str) -> None:
    reference, right, wrong = CASES[name]
    checker = CHECKERS[name]
    said = checker.read(reference)
    assert [text for text in right if not checker.right(text, said)] == []
    assert [text for text in wrong if checker.right(text, said)] == []
    assert not checker.right(right[0] + " " * LONGEST, said), "what is too long is not read"


@pytest.mark.parametrize("name", CASES)
def test_strange_and_huge_texts_are_not_paid(name: str) -> None:
    checker = CHECKERS[name]
    said = checker.read(CASES[name][0])
    for text in (*TEXTS, *(text * 50 for text in TEXTS), *HUGE):
        assert not checker.right(text, said), text[:60]


@pytest.mark.parametrize("digits", OTHER_DIGITS)
def test_digits_of_other_scripts_are_no_number(digits: str) -> None:
    assert not CHECKERS["number"].right(
        "1242".translate(str.maketrans("0123456789", digits)), CHECKERS["number"].read("1242")
    )


@pytest.mark.parametrize(
    ("reference", "value"),
    [("5", 5), ("1 2 #### 3", 3), ("-4.50", -4.5), ("#### $70,000", 70000), ("50%", 50), ("none", None), ("3/4", None)],
)
def test_a_reference_is_its_last_number(reference: str, value: float | None) -> None:
    assert CHECKERS["number"].read(reference) == value


@pytest.mark.parametrize(("name", "reference"), [("number", "many"), ("choice", "AB"), ("choice", "2"), ("regex", "(")])
def test_a_text_that_is_no_reference_is_known(name: str, reference: str) -> None:
    assert CHECKERS[name].read(reference) is None


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_work_is_linear(name: str) -> None:
    checker = CHECKERS[name]
    said = checker.read(CASES[name][0])
    for unit in ("answer is A ", "9", "$1,", "answer B\n", r"\boxed{", "a b "):
        work = [lines_run(lambda text=unit * count: checker.right(text, said)) for count in (100, 400, 1600)]  # type: ignore[misc]
        assert work[1] <= 4 * work[0] + 8 and work[2] <= 4 * work[1] + 8, unit


@given(st.text(st.characters()) | st.text("0123456789,.$%-−/ #A)B(answeris\n", max_size=60))
def test_every_text_is_answered(text: str) -> None:
    for name, (reference, _, _) in CASES.items():
        assert CHECKERS[name].right(text, CHECKERS[name].read(reference)) in (True, False)


@needs_math_verify
@pytest.mark.parametrize(
    ("reference", "right", "wrong"),
    [
        (r"\frac{1}{2}", [r"\boxed{\frac12}", r"\boxed{0.5}", r"\boxed{\dfrac12}"], [r"\boxed{1}", "0.5", r"\boxed{0.5}" * 2]),
        (r"x^2 + 2x", [r"\boxed{2x + x^2}", r"\boxed{x(x+2)}"], [r"\boxed{x^2}", r"\boxed{}", r"\boxed{NaN}"]),
        (r"\$32,348", [r"\boxed{\$32,348}"], [r"\boxed{32}"]),
        (r"\text{Evelyn}", [r"\boxed{\text{Evelyn}}"], [r"\boxed{\text{Eve}}", r"\boxed{Evelyn, Ann}"]),
        (r"7", [r"\boxed{7}"], [r"\boxed{9^{9^{9^9}}}", r"\boxed{10^{999999}}", rf"\boxed{{{'9' * 10**5}}}", r"\boxed{1,2,7}"]),
    ],
)  # fmt: skip
def test_formulas_are_compared_by_what_they_mean(reference: str, right: list[str], wrong: list[str]) -> None:
    checker = CHECKERS["math"]
    said = checker.read(reference)
    assert [text for text in right if not checker.right(text, said)] == []
    assert [text for text in wrong if checker.right(text, said)] == []


@needs_math_verify
def test_strange_texts_are_no_formula() -> None:
    checker = CHECKERS["math"]
    said = checker.read(r"\frac{5}{12}")
    for text in (*TEXTS, *(rf"\boxed{{{text}}}" for text in TEXTS), *HUGE):
        assert not checker.right(text, said), text[:60]


def test_without_math_verify_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from envs.adapters.dataset import Dataset

    made: Any = Dataset
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(ImportError, match=r"-c constraints.txt -e '\.\[math\]'"):
        made(path="any.jsonl", checker="math")

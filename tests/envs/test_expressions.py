"""The expression reader, against values computed on the trees that the texts were printed from."""

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.expressions import LONGEST, evaluate
from tests.envs.counting import lines_run

Tree = int | tuple["Tree", str, "Tree"]


def random_tree(rng: random.Random, leaves: int) -> Tree:
    if leaves == 1:
        return rng.choice((0, 1, 2, 3, 7, 10, 99, 9999))
    left = rng.randint(1, leaves - 1)
    return random_tree(rng, left), rng.choice("+-*/"), random_tree(rng, leaves - left)


def value_of(tree: Tree) -> Fraction:
    if isinstance(tree, int):
        return Fraction(tree)
    left, operator, right = value_of(tree[0]), tree[1], value_of(tree[2])
    return {"+": lambda: left + right, "-": lambda: left - right, "*": lambda: left * right, "/": lambda: left / right}[
        operator
    ]()


def leaves_of(tree: Tree) -> tuple[int, ...]:
    return (tree,) if isinstance(tree, int) else leaves_of(tree[0]) + leaves_of(tree[2])


def text_of(tree: Tree, rng: random.Random, level: int = 0, right: bool = False) -> str:
    """Print with all brackets that are needed, some that are not, and some spaces."""
    space = rng.choice(("", "", " "))
    if isinstance(tree, int):
        text, needed = str(tree), False
    else:
        own = 1 if tree[1] in "+-" else 2
        parts = text_of(tree[0], rng, own), tree[1], text_of(tree[2], rng, own, right=True)
        text = space.join(parts)
        needed = own < level or (own == level and right)
    return f"({space}{text})" if needed or rng.random() < 0.1 else text


def test_equals_the_value_of_the_tree() -> None:
    rng = random.Random(0)
    read = 0
    for _ in range(2000):
        tree = random_tree(rng, rng.randint(1, 9))
        text = text_of(tree, rng)
        found = evaluate(text)
        try:
            expected = value_of(tree)
        except ZeroDivisionError:
            assert found is None, text
            continue
        assert found is not None and found.value == expected and found.numbers == leaves_of(tree), text
        read += 1
    assert read > 1000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7-2-1", 4),
        ("8/4/2", 1),
        ("2-(3-4)", 3),
        ("8/(4/2)", 4),
        ("1+2*3", 7),
        ("( 1 + 2 ) * 3", 9),
        ("1/3*3", 1),
        ("0", 0),
    ],
)
def test_precedence_and_order(text: str, value: int) -> None:
    found = evaluate(text)
    assert found is not None and found.value == value


@pytest.mark.parametrize(
    "text",
    ["", " ", "+", "1+", "+1", "-1", "1--1", "1 2", "12 34+1", "()", "(1", "1)", ")1(", "1(2)", "(1)(2)", "2**3",
     "2//3", "1=1", "1+1=2", "1,2", "1.0", "1e3", "0x1", "01", "00", "1_0", "12345", "1/0", "1/(2-2)", "0/0", "²", "2²",
     "٣", "1+٣", "½", "Ⅷ", "１", "1×2", "1÷2", "1−2", "1\n+2", "1\t+2", "\x00", "1+a", "__import__('os')",
     "44**19**35", "\ud800"],
)  # fmt: skip
def test_anything_else_is_no_expression(text: str) -> None:
    assert evaluate(text) is None


@pytest.mark.parametrize(
    "text",
    ["(" * 10_000, "(" * 10_000 + "1" + ")" * 10_000, "(" * 100 + "1" + ")" * 100, "9" * 10**6, "44**19**35",
     "9" * LONGEST, "9999*" * 51 + "1", "1/(" * 32 + "1" + ")" * 32, "1/" * 127 + "7", "9999/" * 51 + "7", " " * 10**6],
)  # fmt: skip
def test_hostile_texts_cost_little(text: str) -> None:
    assert lines_run(lambda: evaluate(text)) <= 20 * LONGEST


def test_depth_is_bounded() -> None:
    assert evaluate("(" * 32 + "5" + ")" * 32) is not None
    assert evaluate("(" * 33 + "5" + ")" * 33) is None


@given(st.text("0123456789+-*/() ", max_size=30))
def test_agrees_with_python_on_any_text_of_its_characters(text: str) -> None:
    """Python's own parser as the reference: what we read, it reads, and to the same value."""
    found = evaluate(text)
    if found is not None:
        exact = "".join(f"Fraction({part})" if part.isdigit() else part for part in split_numbers(text.strip()))
        assert eval(exact, {"Fraction": Fraction}) == found.value


def split_numbers(text: str) -> list[str]:
    parts: list[str] = []
    for c in text:
        if parts and c.isdigit() and parts[-1].isdigit():
            parts[-1] += c
        else:
            parts.append(c)
    return parts

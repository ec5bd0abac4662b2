"""The rules of the tasks of one turn, against graders that read nothing but the question."""

import itertools
import re
from typing import Any

import pytest

from envs import extraction
from envs.arithmetic import Arithmetic
from envs.code import Code, Function
from envs.conciseness import Conciseness, Question
from envs.logic import Logic
from envs.string_edit import StringEdit
from envs.text_env import TextEnv
from envs.word_problems import WordProblems


def observations(env: TextEnv[Any], count: int = 40) -> list[str]:
    return [env.reset(seed=seed, options={"split": "test"})[0] for seed in range(count)]


def paid(env: TextEnv[Any], seed: int, answer: str) -> float:
    """Return what an answer to this test instance earns."""
    env.reset(seed=seed, options={"split": "test"})
    observation, reward, terminated, *_ = env.step(answer)
    assert terminated and observation == ""
    return reward


@pytest.mark.parametrize("options", [{}, {"terms": 8, "digits": 6}, {"terms": 2, "digits": 2}])
def test_arithmetic(options: dict[str, int]) -> None:
    env = Arithmetic(**options)  # type: ignore[arg-type]
    signs = set()
    for seed, text in enumerate(observations(env)):
        numbers = re.findall("[0-9]+", text)
        assert len(numbers) == options.get("terms", 3)
        assert all(len(number) == options.get("digits", 1) and number[0] != "0" for number in numbers)
        value = eval(text)
        signs.add(value > 0)
        assert paid(env, seed, str(value)) == 1
        for wrong in (str(-value), f"+{value}", f"{value}.0", str(value + 1), text):
            assert paid(env, seed, wrong) == 0
    assert len(signs) == 2 or options


@pytest.mark.parametrize("options", [{}, {"events": 8, "largest": 1000}, {"events": 1, "largest": 5}])
def test_word_problems(options: dict[str, int]) -> None:
    env = WordProblems(**options)  # type: ignore[arg-type]
    for seed, text in enumerate(observations(env)):
        story = re.fullmatch(r"[A-Z][a-z]+ has (\d+) [a-z]+s((?:, [a-z]+ \d+)+)\. Now\?", text)
        assert story
        count = int(story[1])
        for verb, amount in re.findall(r"([a-z]+) (\d+)", story[2]):
            count += {"buys": 1, "finds": 1, "gets": 1, "loses": -1, "sells": -1, "gives": -1}[verb] * int(amount)
            assert count >= 0
        assert paid(env, seed, f"#### {count}") == paid(env, seed, f"thinking\n{count + 1}\n####{count}\n") == 1
        for wrong in (str(count), f"#### {count} ####", f"#### {count}.", f"#### {count + 1}", f"#### 0{count}",
                      f"#### {count} #### {count}", f"{count} ####", f"### {count}", f"#### {story[1]}+0x0"):  # fmt: skip
            assert paid(env, seed, wrong) == 0, wrong


@pytest.mark.parametrize(
    ("slack", "answer", "reward"),
    [(0, "12", 1), (0, " 12\n", 1), (0, "12.", 0), (0, "it is 12", 0), (0, "012", 0), (0, "13", 0), (6, "it is 12", 1),
     (5, "it is 12", 0), (6, "12 or 13", 0), (6, "12 12", 0), (6, "11 12", 0), (40, "it is 1 2", 0), (40, "١٢", 0),
     (40, "it is -12", 0), (40, "12 ١٣", 0), (40, "it is 12.5", 0), (40, "it is ٣12", 0), (40, "it's 12.", 1)],
)  # fmt: skip
def test_conciseness(slack: int, answer: str, reward: float) -> None:
    assert Conciseness(slack=slack).score(Question(0, 11), [answer]) == reward


def edited_slowly(command: str, text: str) -> str:
    name, *letters = command.split()
    result = ""
    for letter in text:
        if name == "rev":
            result = letter + result
        elif name == "put":
            result += letters[0] if letter == letters[1] else letter
        else:
            result += letter * ({"drop": 0, "dup": 2}[name] if letter == letters[0] else 1)
    return result


@pytest.mark.parametrize("options", [{}, {"letters": 20, "edits": 6}, {"letters": 3, "edits": 2}])
def test_string_edit(options: dict[str, int]) -> None:
    env = StringEdit(**options)  # type: ignore[arg-type]
    kinds = set()
    for seed, question in enumerate(observations(env)):
        told, text = question.split(": ")
        assert len(told.split(", ")) == options.get("edits", 1) and len(text) == options.get("letters", 5)
        result = text
        for command in told.split(", "):
            kinds.add(command.split()[0])
            changed = edited_slowly(command, result)
            assert changed not in ("", result), "every edit changes the text"
            result = changed
        assert paid(env, seed, result) == 1
        assert paid(env, seed, result.upper()) == paid(env, seed, result[::-1] + "k") == 0
        assert paid(env, seed, text) == (text == result)
    assert kinds == {"rev", "drop", "put", "dup"}


@pytest.mark.parametrize("options", [{}, {"variables": 4, "further": 5}, {"variables": 10, "further": 20}])
def test_logic_has_one_solution(options: dict[str, int]) -> None:
    env = Logic(**options)  # type: ignore[arg-type]
    variables = options.get("variables", 5)
    for seed, text in enumerate(observations(env, 15)):
        clauses = text.split()
        assert len(clauses) == variables + options.get("further", 0)
        choices = [(letter, letter.upper()) for letter in "abcdefghij"[:variables]]
        solutions = [
            "".join(letters)
            for letters in itertools.product(*choices)
            if all(any(letter in letters for letter in clause) for clause in clauses)
        ]
        assert len(solutions) == 1
        assert paid(env, seed, solutions[0]) == 1
        for wrong in (solutions[0].swapcase(), solutions[0][::-1], solutions[0][:-1], " ".join(solutions[0])):
            assert paid(env, seed, wrong) == 0


@pytest.mark.parametrize(
    ("answer", "reward"),
    [("2*x+3", 1), ("x+x+3", 1), ("3+2*x", 1), ("(x+1)*2+1", 1), ("4*x/2+3", 1), ("2x+3", 0), ("x2+3", 0), ("2**x+3", 0),
     ("2*x+3.0", 0), ("5", 0), ("3+x*(5-x+x-3)", 1), ("3+2*x*x", 0), ("3+x*(x+1)/1", 0), ("-x", 0), ("lambda x: 2*x+3", 0),
     ("__import__('os')", 0), ("2*y+3", 0), ("x" * 61, 0), ("9*9*9" + "*9" * 20 + "*x", 0), ("1/(x-x)", 0)],
)  # fmt: skip
def test_code(answer: str, reward: float) -> None:
    assert Code().score(Function(3, 2, 0), [answer]) == reward


@pytest.mark.parametrize("options", [{}, {"degree": 2, "steepest": 99, "largest": 999, "shown": 6}])
def test_code_shows_what_the_function_does(options: dict[str, int]) -> None:
    env = Code(**options)  # type: ignore[arg-type]
    squares = set()
    for seed, text in enumerate(observations(env)):
        values = [int(case.split(":")[1]) for case in text.split()]
        square = (values[2] - 2 * values[1] + values[0]) // 2 if len(values) > 2 else 0
        squares.add(square)
        slope = values[1] - values[0] - square
        assert paid(env, seed, f"{square}*x*x + {slope}*x + {values[0]}") == 1
        assert paid(env, seed, f"{slope}*x+{values[0] + 1}") == 0
    assert squares == set(range(options.get("degree", 1)))


def test_code_with_fewer_cases_than_it_takes_is_refused() -> None:
    with pytest.raises(ValueError, match="shown: expected more than degree=2, got 2"):
        Code(degree=2)


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        (extraction.after_mark("so #### 7 ", "####"), "7"),
        (extraction.after_mark("7", "####"), None),
        (extraction.after_mark("#### 7 #### 8", "####"), None),
        (extraction.in_tags("x <answer> 7\n</answer> y", "answer"), "7"),
        (extraction.in_tags("<answer>7</answer><answer>8</answer>", "answer"), None),
        (extraction.in_tags("</answer>7<answer>", "answer"), None),
        (extraction.in_tags("<answer>7", "answer"), None),
        (extraction.boxed(r"so \boxed{\frac{1}{2}}."), r"\frac{1}{2}"),
        (extraction.boxed(r"\boxed{1} \boxed{2}"), None),
        (extraction.boxed(r"\boxed{1"), None),
        (extraction.boxed("1"), None),
        (extraction.last_line("thinking\n\n 7 \n\n"), "7"),
        (extraction.last_line(" \n"), None),
    ],
)
def test_extraction(found: str | None, answer: str | None) -> None:
    assert found == answer

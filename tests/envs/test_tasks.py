"""Each task's own rules, against graders that read nothing but the conversation."""

import itertools
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from omegaconf import OmegaConf

import envs  # noqa: F401
from envs.arithmetic import Arithmetic
from envs.code import Code
from envs.conciseness import Conciseness
from envs.contract import CHECKS
from envs.countdown import Countdown, Round, combine
from envs.frozen_lake import FrozenLake
from envs.guess_number import GuessNumber
from envs.hangman import Hangman
from envs.hanoi import Hanoi
from envs.key_door import KeyDoor
from envs.logic import Logic
from envs.mastermind import Mastermind
from envs.recall import Recall
from envs.sokoban import Sokoban
from envs.sort import Sort
from envs.string_edit import StringEdit
from envs.text_env import TextEnv
from envs.trade import Trade
from envs.word_problems import WordProblems
from envs.wordle import Wordle

CONFIGS = Path(__file__).parents[2] / "conf" / "env"
WRONG_TYPES = ("5", True, 2.5, float("nan"), None, [5])


@pytest.mark.parametrize(
    ("task", "option", "values"),
    [
        (Sort, "digits", (0, 1, -1, 16, 100)),
        (Countdown, "numbers", (0, 1, 7, -3)),
        (Countdown, "largest", (0, 1, 100)),
        (Countdown, "largest_target", (0, -1, 10_000)),
        (Recall, "delay", (-1, 1001)),
        (Recall, "length", (0, 10, -1)),
        (Arithmetic, "terms", (1, 9)),
        (Arithmetic, "digits", (0, 7)),
        (WordProblems, "events", (0, 9)),
        (WordProblems, "largest", (4, 1001)),
        (Countdown, "format_reward", (-0.1, 0.6)),
        (Conciseness, "wordy_reward", (-0.1, 0.6)),
        (Conciseness, "largest", (98, 100_000)),
        (Conciseness, "slack", (-1, 41)),
        (StringEdit, "letters", (2, 21)),
        (StringEdit, "edits", (0, 7)),
        (Logic, "variables", (3, 11)),
        (Logic, "further", (-1, 21)),
        (Code, "degree", (0, 3)),
        (Code, "largest", (8, 1000)),
        (Code, "steepest", (2, 100)),
        (Code, "shown", (1, 7)),
        (GuessNumber, "largest", (9, 1_000_001)),
        (GuessNumber, "guesses", (0, 65)),
        (Mastermind, "pegs", (1, 6)),
        (Mastermind, "colours", (1, 9)),
        (Mastermind, "guesses", (0, 21)),
        (Wordle, "words", (49, 1000)),
        (Wordle, "clues", (0, 4)),
        (Wordle, "guesses", (0, 13)),
        (Hangman, "words", (49, 1000)),
        (Hangman, "misses", (0, 11)),
        (Hanoi, "discs", (2, 8)),
        (Hanoi, "slack", (-1, 1001)),
        (KeyDoor, "rows", (2, 10)),
        (KeyDoor, "walls", (-1, 21)),
        (FrozenLake, "size", (2, 10)),
        (FrozenLake, "holes", (0, 31)),
        (FrozenLake, "slack", (-1, 1001)),
        (Sokoban, "columns", (2, 7)),
        (Sokoban, "boxes", (0, 3)),
        (Sokoban, "longest", (2, 101)),
        (Trade, "steps", (1, 7)),
        (Trade, "astray", (0, 4)),
    ],
)
def test_options_are_checked(task: Any, option: str, values: tuple[object, ...]) -> None:
    for value in (*values, *WRONG_TYPES):
        with pytest.raises(ValueError, match=option):
            task(**{option: value})
        with pytest.raises(ValueError, match=option):
            gymnasium.make(f"evotext/{task.__name__}-v0", **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("digits", [2, 5, 15])
def test_sort(digits: int) -> None:
    env = Sort(digits=digits)
    for seed in range(50):
        observation, info = env.reset(seed=seed)
        given = observation.removeprefix("sort ")
        assert len(given) == digits and f"{digits} digits" in info["instructions"]
        ordered = [c for digit in "0123456789" for c in given if c == digit]
        wrong = {given, given[::-1], "".join(ordered[:-1]), "".join(reversed(ordered)), "".join(sorted(set(given)))}
        for answer in wrong - {"".join(ordered)}:
            env.reset(seed=seed)
            assert env.step(answer)[1] == 0
        env.reset(seed=seed)
        assert env.step("".join(ordered)) == ("", 1.0, True, False, {})


def test_sort_of_all_ten_digits_is_never_an_instance() -> None:
    """Otherwise "0123456789" would be right now and then, whatever the question."""
    env = Sort(digits=10)
    assert env.score("9876543210", env.example) == 1  # so that such instances are left out


@pytest.mark.parametrize("delay", [0, 1, 2, 7])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_recall(delay: int, length: int) -> None:
    env = Recall(delay=delay, length=length)
    for seed, split in itertools.product(range(20), ("train", "test")):
        observation, info = env.reset(seed=seed, options={"split": split})
        key = observation.removeprefix("key ")
        assert re.fullmatch(rf"key [0-9]{{{length}}}", observation) and "`key?`" in info["instructions"]
        for _ in range(delay):
            observation, reward, terminated, *_ = env.step(key)
            assert re.fullmatch(rf"see [0-9]{{{length}}}", observation) and observation.removeprefix("see ") != key
            assert reward == 0 and not terminated
        observation, reward, terminated, *_ = env.step("")
        assert (observation, reward, terminated) == ("key?", 0.0, False)
        assert env.step(key) == ("", 1.0, True, False, {})
        assert env.turn == delay + 2


def test_recall_pays_for_the_last_answer_alone() -> None:
    env = Recall(delay=2)
    for last in ("ok", "", "{see}"):
        key = env.reset(seed=4)[0].removeprefix("key ")
        for _ in range(3):
            env.step(key)
        assert env.step(last.format(see=env.instance.distractions[-1]))[1] == 0


def reachable(numbers: tuple[int, ...]) -> set[int]:
    """All that + - * make of the numbers, by trying every tree."""
    if len(numbers) == 1:
        return set(numbers)
    found = set()
    for size in range(1, len(numbers)):
        for left in set(itertools.combinations(range(len(numbers)), size)):
            rest = tuple(n for i, n in enumerate(numbers) if i not in left)
            for a in reachable(tuple(numbers[i] for i in left)):
                for b in reachable(rest):
                    found |= {a + b, a - b, a * b}
    return found


@pytest.mark.parametrize("options", [{}, {"numbers": 2}, {"numbers": 4, "largest": 25}, {"numbers": 6, "largest": 99}])
def test_countdown(options: dict[str, int]) -> None:
    env = Countdown(**options)  # type: ignore[arg-type]
    for seed in range(40):
        observation, _ = env.reset(seed=seed)
        match = re.fullmatch(r"make ([0-9]+) from ([0-9 ]+)", observation)
        assert match
        target, numbers = int(match[1]), tuple(map(int, match[2].split()))
        assert len(numbers) == options.get("numbers", 3) and 1 <= target <= 99
        assert all(1 <= number <= options.get("largest", 9) for number in numbers)
        if len(numbers) < 5:
            assert target in reachable(numbers)
        solution = env.instance.solution
        assert sorted(map(int, re.findall("[0-9]+", solution))) == sorted(numbers)
        assert eval(solution) == target
        assert env.step(solution) == ("", 1.0, True, False, {})


@pytest.mark.parametrize(
    ("answer", "reward"),
    [("2*3+4", 1), ("4+3*2", 1), ("(2*3)+4", 1), (" 4 + 2 * 3 \n", 1), ("10", 0), ("2+3+4", 0), ("2*5", 0),
     ("2*3+4+0", 0), ("2*3+4=10", 0), ("2*3+4 4+3*2", 0), ("6+4", 0), ("2*3*4-2*3*4+2*3+4", 0), ("4+3+3", 0),
     ("2*3+4*1", 0), ("2*3+04", 0), ("answer: 2*3+4", 0)],
)  # fmt: skip
def test_countdown_pays_for_each_number_once(answer: str, reward: float) -> None:
    env = Countdown()
    assert env.score(Round((2, 3, 4), 10, "2*3+4"), [answer]) == reward


@pytest.mark.parametrize(
    ("answer", "formed", "right"), [("2*3+4", 1, 1), ("2+3+4", 1, 0), ("6+4", 0, 0), ("10", 0, 0), ("2+3+", 0, 0)]
)
def test_countdown_pays_for_the_form(answer: str, formed: int, right: int) -> None:
    env = Countdown(format_reward=0.1)
    env.score(Round((2, 3, 4), 10, "2*3+4"), [])
    env.reset(seed=3)
    env.instance = Round((2, 3, 4), 10, "2*3+4")
    _, reward, _, _, info = env.step(answer)
    assert info == {"reward_parts": {"format": 0.1 * formed, "answer": 0.9 * right}}
    assert reward == pytest.approx(0.1 * formed + 0.9 * right)


@pytest.mark.parametrize(
    ("kind", "options"), [(Countdown, {"format_reward": 0.1}), (Conciseness, {"wordy_reward": 0.5})]
)
def test_options_that_pay_for_a_part_keep_the_contract(kind: Any, options: dict[str, float]) -> None:
    for name, check in CHECKS.items():
        if name not in ("gymnasiums check", "every text is answered"):  # which know no options, and take long
            assert check(lambda: kind(**options), 1) == "", name


def test_countdown_divides_exactly() -> None:
    env = Countdown()
    assert env.score(Round((1, 3, 9), 27, "1*3*9"), ["9/(1/3)"]) == 1
    assert env.score(Round((2, 3, 4), 2, ""), ["4/3*2"]) == 0  # 8/3: no rounding


def test_countdown_prints_what_it_computes() -> None:
    rng = np.random.default_rng(0)
    texts = set()
    for _ in range(1000):
        numbers = sorted(rng.integers(1, 10, size=rng.integers(2, 7)).tolist())
        value, text = combine(numbers, int(rng.integers(10**9)))
        assert eval(text) == value >= 0
        texts.add(text)
    assert any("(" in text for text in texts) and any("*" in text for text in texts)


def test_a_split_without_instances_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected instances in the .* split of Countdown, found none .*target=1"):
        for split in ("train", "test"):
            Countdown(numbers=2, largest=2, largest_target=1).reset(seed=0, options={"split": split})


@pytest.mark.parametrize(
    ("task", "config"),
    [
        (Sort(digits=15), "sort"),
        (Recall(length=9), "recall"),
        (Countdown(numbers=6, largest=99), "countdown"),
        (Arithmetic(terms=8, digits=6), "arithmetic"),
        (WordProblems(events=8, largest=1000), "word_problems"),
        (Conciseness(largest=99_999), "conciseness"),
        (StringEdit(letters=20), "string_edit"),
        (Logic(variables=10), "logic"),
        (Code(degree=2, steepest=99, largest=999, shown=3), "code"),
        (GuessNumber(largest=1_000_000), "guess_number"),
        (Mastermind(pegs=5, colours=3), "mastermind"),
    ],
)
def test_the_token_limit_admits_the_hardest_answers(task: TextEnv[Any], config: str) -> None:
    """The limit leaves room for an end token, for a tokenizer of characters."""
    limit = OmegaConf.load(CONFIGS / f"{config}.yaml").max_new_tokens
    rng = np.random.default_rng(0)
    assert max(len(answer) for _ in range(100) for _, answer in task.demonstrate(rng)) < limit

"""Whatever a model writes: every scorer answers it, in linear time, and pays nothing for hedges and tricks."""

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from envs import extraction
from envs.adapters.discrete import as_text
from envs.text_env import TextEnv
from envs.wrappers import RULES, AnswerExtraction, DelayedReward, LengthLimit, SparseReward
from tests.envs.counting import lines_run

IDS = envs.native_ids()
Env = gymnasium.Env[str, str]

# Each is also tried many times over, without and with spaces between.
TEXTS = (
    "", " ", "\n", "\x00", "\x1b[2J", "\u2028", "\ufeff", "\u202e", "\ud800",
    "\udfff\ud800", "é", "ß", "中", "🙂", "e\u0301" * 9,
    "²", "½", "٣", "Ⅷ", "１", "0", "00", "-0", "+1", "1.0", "1e309", "nan", "inf", "None", "True",
    "9**9**9", "44**19**35", "1/0", "1//0", "x" * 61, "__import__('os').system('true')", "{0.__class__}", "%s%n", "${x}",
    "((((1))))", "[]", "()", ")(", "{", "}", "####", "#### ", "<answer>", "</answer>", "<answer></answer>", r"\boxed{",
    r"\boxed{}",
    "(a+)+$", "u", "d", "ab", "0123456789", "abcdefghijklmnopqrstuvwxyz", "\r", "\t", "`",
)  # fmt: skip
HUGE = (
    *("(" * 10**5 + "1" + ")" * 10**5, "9" * 10**6, "1+" * 10**6, " " * 10**6 + "x", "\n" * 10**6, "\ud800" * 10**5),
    *(text * (10**5 // len(text)) for text in ("####", "<answer>", "</answer>", r"\boxed{", "{}", "12 ", "٣", "🙂")),
    *(rf"\boxed{{{'{' * 10**5}{'}' * 10**5}}}", f"<answer>{'<' * 10**6}</answer>", f"#### {'#' * 10**6}"),
)
WRAPPERS: dict[str, Callable[[Any], Env]] = {
    "none": lambda env: env,
    "sparse": SparseReward,
    "delayed": lambda env: DelayedReward(env, turns=2),
    "limited": lambda env: LengthLimit(env, characters=100),
    **{rule: lambda env, rule=rule: AnswerExtraction(env, rule=rule) for rule in RULES},  # type: ignore[misc]
}
OTHER_DIGITS = ("٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "０１２３４５６７８９", "⁰¹²³⁴⁵⁶⁷⁸⁹", "₀₁₂₃₄₅₆₇₈₉", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗")


def play(env: Env, answers: Iterable[str]) -> float:
    """Go on with the running episode to its end, by these answers, and return the sum of its rewards."""
    total, over = 0.0, False
    rest = iter(answers)
    while not over:
        observation, reward, terminated, truncated, _ = env.step(next(rest))
        assert type(observation) is str
        total += float(reward)
        over = terminated or truncated
    return total


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("env_id", IDS)
def test_strange_texts_are_answered_and_not_paid(env_id: str, wrap: Any) -> None:
    env = wrap(gymnasium.make(env_id, render_mode="ansi"))
    for seed, text in enumerate(TEXTS):
        for answer in (text, text * 50, f"{text} " * 50):
            env.reset(seed=seed, options={"split": ("train", "test")[seed % 2]})
            assert play(env, repeat(answer)) == 0, (env.unwrapped.instance, answer)
        assert env.render().isprintable() or "\n" in env.render()


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("env_id", IDS)
def test_huge_texts_are_answered_and_not_paid(env_id: str, wrap: Any) -> None:
    """Something of quadratic cost within them would take minutes."""
    env = wrap(gymnasium.make(env_id))
    for seed, text in enumerate(HUGE):
        env.reset(seed=seed)
        assert play(env, repeat(text)) == 0


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("env_id", IDS)
def test_the_work_is_linear_in_the_text(env_id: str, wrap: Any) -> None:
    """Count lines of Python in one step: four times the text takes at most four times the work."""
    env = wrap(gymnasium.make(env_id))
    for unit in ("9", "(", "1+", "x", "\ud800", "a", r"\boxed{", "{}", "12\n", "####"):
        work = []
        for count in (200, 800, 3200):
            env.reset(seed=0)
            work.append(lines_run(lambda text=unit * count: env.step(text)))  # type: ignore[misc]
        assert work[1] <= 4 * work[0] and work[2] <= 4 * work[1], (unit, work)


@pytest.mark.parametrize("env_id", IDS)
@settings(max_examples=150, deadline=None)
@given(
    text=st.text(st.characters()) | st.text("0123456789+-*/() okx#", max_size=60) | st.text("\x00\ud800²٣½１(9*", max_size=60),
    seed=st.integers(0, 10**6),
)  # fmt: skip
def test_every_text_is_answered(env_id: str, text: str, seed: int) -> None:
    env = gymnasium.make(env_id)
    env.reset(seed=seed)
    assert 0 <= play(env, repeat(text)) <= 1


@given(st.text(st.characters()) | st.text(r"\boxed{}<answer>/#1 " + "\n", max_size=80))
def test_extraction_finds_a_part_of_the_text_or_nothing(text: str) -> None:
    for find in RULES.values():
        found = find(text)
        assert found is None or (found in text and found == found.strip(extraction.WHITE_SPACE))


@pytest.mark.parametrize("env_id", IDS)
def test_hedges_and_disguises_are_not_paid(env_id: str) -> None:
    """The right last answer among all others, in other letters and digits, and marked twice."""
    env = gymnasium.make(env_id)
    assert isinstance(env, TextEnv)
    rng = np.random.default_rng(1)
    solved = 0
    while solved < 8:
        answers = [answer for _, answer in env.demonstrate(rng)]
        instance, right = env.instance, answers[-1]
        if env.score(instance, answers) <= 0:
            continue
        solved += 1
        env._start(instance)
        others = [env.legal(rng) for _ in range(20)]
        listed = [*others[:10], right, *others[10:]]
        final = right.rpartition("#### ")[2] if env.reads_the_end else right
        tricks = {separator.join(listed) for separator in (" ", "\n", ",", ";", "|", " or ", "\x00")}
        tricks |= {right.translate(str.maketrans("0123456789", digits)) for digits in OTHER_DIGITS}
        tricks |= {right.swapcase(), "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in right)}
        tricks |= {
            f"<answer>{right}</answer>",
            rf"\boxed{{{right}}}",
            f"{right}\n{others[0]}",
            f'"{right}"',
            f"{right}\u200b",
        }
        tricks |= {f"#### {final} #### {final}", f"#### {final} or 1", f"#### {final}, 1", f"#### {final}\x00"}
        for trick in tricks - {right}:
            assert env.score(instance, [*answers[:-1], trick]) == 0, (instance, trick)


def test_a_discrete_environment_answers_every_text() -> None:
    env = as_text(gymnasium.make("FrozenLake-v1", render_mode="ansi"), actions=None, nonsense_cost=1.0)
    for seed, text in enumerate((*TEXTS, *HUGE)):
        env.reset(seed=seed)
        if text.strip(extraction.WHITE_SPACE) != "0":
            assert env.step(text)[1:3] == (-1.0, False), text

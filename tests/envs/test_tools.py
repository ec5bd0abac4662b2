"""Tools within an episode: calls in both formats, malformed ones, and the calculator's task."""

import json
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.contract import CHECKS
from envs.tools import MOST_AT_ONCE, Tool, ToolCalls, calculator, calls_in
from evotext.cli.composing import compose
from tests.envs.counting import lines_run
from tests.envs.test_adversarial import HUGE, TEXTS

Env = gymnasium.Env[str, str]


def task(most_calls: int = 3, calls: Any = "hermes", **tools: Tool) -> Env:
    env = gymnasium.make("envs:evotext/Calculator-v0")
    made = {name: lambda tool=tool: tool for name, tool in tools.items()}
    return ToolCalls(env, tools=made or {"calculator": calculator}, most_calls=most_calls, calls=calls)


def hermes(expression: Any, name: str = "calculator") -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': {'expression': expression}})}\n</tool_call>"


def plain(expression: str) -> str:
    return f"CALL calculator({expression})"


def unwrapped(result: str) -> str:
    return result.removeprefix("RESULT ").removeprefix("<tool_response>\n").removesuffix("\n</tool_response>")


def test_the_task_is_a_gymnasium_environment() -> None:
    check_env(gymnasium.make("envs:evotext/Calculator-v0").unwrapped, skip_render_check=True)


@pytest.mark.parametrize("calls", ["template", "hermes", "plain"])
def test_it_keeps_the_contract(calls: Any) -> None:
    assert {name: fault for name, check in CHECKS.items() if (fault := check(lambda: task(calls=calls), 4))} == {}


@pytest.mark.parametrize("call", [hermes, plain])
def test_a_policy_that_calls_solves_what_another_does_not(call: Any) -> None:
    env = task()
    for seed in range(30):
        question, info = env.reset(seed=seed, options={"split": ("train", "test")[seed % 2]})
        assert "calculator" in info["instructions"] and "nothing else" in info["instructions"]
        result, *rest = env.step("Let me see.\n" + call(question))
        assert rest[:3] == [0.0, False, False]
        value = unwrapped(result)
        assert value == str(eval(question)) and len(value) > 6  # eval: of our own text
        assert env.step(f" {value}\n")[1:3] == (1.0, True)


def test_the_two_splits_do_not_meet_and_seeds_decide() -> None:
    env, twin = task(), task()
    asked = {split: [env.reset(seed=s, options={"split": split})[0] for s in range(300)] for split in ("train", "test")}
    assert asked["train"] == [twin.reset(seed=s)[0] for s in range(300)]
    assert set(asked["train"]).isdisjoint(asked["test"]) and len(set(asked["train"])) == 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<tool_call>", "expected JSON"),
        ("<tool_call>{'name': 'calculator'}</tool_call>", "expected JSON"),
        ("<tool_call>[1]</tool_call>", 'expected {"name"'),
        ('<tool_call>{"name": 3}</tool_call>', 'expected {"name"'),
        ('<tool_call>{"name": "calculator", "arguments": "1"}</tool_call>', 'expected {"name"'),
        ('<tool_call>{"name": "calculator"}</tool_call>', "expected the arguments expression of calculator"),
        (hermes("1", name="shell"), "expected one of the tools calculator, got 'shell'"),
        (hermes("__import__('os')"), "expected + - * /"),
        (hermes("9**9**9"), "expected + - * /"),
        (hermes("1/0"), "expected + - * /"),
        (hermes(["1"]), "expected + - * /"),
        (f"<tool_call>{'[' * 10**6}</tool_call>", "at most 2000 characters"),
        (f"<tool_call>{'[' * 1900}</tool_call>", "expected JSON"),
        (f"<tool_call>{'9' * 1900}</tool_call>", "expected {"),
        ("CALL calculator(1", "expected a line CALL calculator(arguments)"),
        ("CALL calculator(1) or so", "expected a line"),
        ("CALL calculator(1, 2)", "expected the arguments expression"),
        ("CALL shell(ls)", "expected one of the tools"),
    ],
)
def test_a_malformed_call_gets_a_message_and_the_episode_goes_on(text: str, message: str) -> None:
    env = task()
    question, _ = env.reset(seed=0)
    result, reward, terminated, truncated, _ = env.step(text)
    assert unwrapped(result).startswith("error: ") and message in result and len(result) < 300
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert env.step(str(eval(question)))[1:3] == (1.0, True)


def test_a_call_may_end_with_its_turn_and_several_are_answered_in_order() -> None:
    env = task(most_calls=5)
    env.reset(seed=0)
    assert unwrapped(env.step(hermes("2 * 21").removesuffix("\n</tool_call>"))[0]) == "42"
    assert unwrapped(env.step(hermes("1/3"))[0]) == "1/3"
    assert env.step(plain("(1 + 2) * 3") + "\n" + plain("8/2"))[0] == "RESULT 9\nRESULT 4"
    assert len(calls_in(hermes("1") * 100)) == len(calls_in((plain("1") + "\n") * 100)) == MOST_AT_ONCE


def test_calls_run_out_in_an_episode() -> None:
    env = task(most_calls=2)
    for seed in range(2):
        env.reset(seed=seed)
        assert [unwrapped(env.step(plain("1"))[0]) for _ in range(3)] == [
            *("1", "1", "error: expected at most 2 calls; give your answer")
        ]


def test_what_is_no_call_is_passed_on() -> None:
    env = task()
    for text in (
        "CALL",
        "I CALL calculator(1)",
        "</tool_call>",
        "<tool_response>\n1\n</tool_response>",
        "call calculator(1)",
    ):
        env.reset(seed=0)
        assert env.step(text)[1:3] == (0.0, True)


def test_tools_of_ones_own() -> None:
    def run(word: str, times: str) -> str:
        if not times.isascii() or not times.isdigit():
            raise ValueError("times: expected a number")
        return word * min(int(times), 9)

    def broken(word: str) -> str:
        raise KeyError(word)

    words = {"word": "a word", "times": "how often"}
    env = task(
        most_calls=9,
        repeat=Tool(name="repeat", description="Repeats a word.", parameters=words, run=run),
        broken=Tool(name="broken", description="Fails.", parameters={"word": "a word"}, run=broken),
    )
    env.reset(seed=0)
    assert env.step("CALL repeat(ab, 2)")[0] == "RESULT abab"
    typed = '<tool_call>{"arguments": {"times": 3, "word": "é"}, "name": "repeat"}</tool_call>'
    assert unwrapped(env.step(typed)[0]) == "ééé"
    assert env.step("CALL repeat(ab, many)")[0] == "RESULT error: times: expected a number"
    with pytest.raises(KeyError):  # the environment's fault, which is counted as such
        env.step("CALL broken(x)")


def test_strange_and_huge_texts_are_answered_and_not_paid() -> None:
    env = task()
    for text in (*TEXTS, *HUGE, "<tool_call>" * 10**5, "CALL x(\n" * 10**5, "CALL x(" + ")" * 10**6, "CALL " * 10**5):
        env.reset(seed=0)
        assert env.step(text)[1] == 0.0


def test_reading_calls_is_linear() -> None:
    for unit in ("<tool_call>", "CALL ", "CALL x(", "CALL x()\n", "{", "(", "\n"):
        work = [lines_run(lambda text=unit * count: calls_in(text)) for count in (200, 800, 3200)]  # type: ignore[misc]
        assert work[1] <= 4 * work[0] + 50 and work[2] <= 4 * work[1] + 50, unit


@settings(deadline=None)
@given(st.text('<tool_call>/CALL calculator()1+"{}:name,\n', max_size=120) | st.text(st.characters()))
def test_every_text_is_answered(text: str) -> None:
    env = task()
    env.reset(seed=0)
    assert env.step(text)[1] == env.step(text)[1] == 0.0 if calls_in(text) else env.step(text)[1] == 0.0


@pytest.mark.parametrize("digits", [1, 4])
def test_options_decide_the_numbers(digits: int) -> None:
    env = gymnasium.make("envs:evotext/Calculator-v0", numbers=3, digits=digits)
    for seed in range(50):
        parts = env.reset(seed=seed)[0].split()
        assert [len(part) for part in parts[::2]] == [digits] * 3 and "*" in parts[1::2]


def test_the_configuration_makes_the_task() -> None:
    from hydra.utils import instantiate

    made = instantiate(compose("check_env", ["env=calculator"]).env)
    env = made.environments(1)[0]
    env.reset(seed=0)
    assert made.success_return == 1.0 and unwrapped(env.step(hermes("6 * 7"))[0]) == "42"

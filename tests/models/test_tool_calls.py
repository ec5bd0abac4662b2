"""Tools by a chat template: shown as the template itself does, calls read in its format, an episode that calls one."""

import json
from dataclasses import replace
from typing import Any

import gymnasium
import pytest
from hydra.utils import instantiate
from transformers import PreTrainedTokenizerFast

from envs.tools import Tool, ToolCalls, calculator
from evotext.cli.composing import compose
from evotext.models.character_tokenizer import character_tokenizer
from evotext.models.chat import ChatFormat
from evotext.models.tool_calls import FORMATS, Tools, read_tools
from evotext.rollouts.collector import Collector
from evotext.rollouts.session import Completion, Session
from tests.rollouts.chatter import plan
from tests.small_models import small_model

# How each family writes a call, and how it shows the tools: before the first message, or in it.
CALL = {
    "hermes": '\n<tool_call>\n{"name": "{{ c.name }}", "arguments": {{ c.arguments | tojson }}}\n</tool_call>',
    "qwen3_5": "<tool_call>\n<function={{ c.name }}>\n{% for k, v in c.arguments | items %}<parameter={{ k }}>\n{{ v }}\n"
    "</parameter>\n{% endfor %}</function>\n</tool_call>",
    "llama3": '{"name": "{{ c.name }}", "parameters": {{ c.arguments | tojson }}}',
    "unknown": "{{ c.name }} of {{ c.arguments | tojson }}",
}
TEMPLATE = (
    "{% if tools %}[tools {% for t in tools %}{{ t | tojson }}{% endfor %}]{% endif %}{% for m in messages %}"
    "{% if m.role == 'tool' %}{% if loop.previtem.role != 'tool' %}[user]{% endif %}<r>{{ m.content }}</r>"
    "{% if loop.last %}<|end|>{% endif %}"
    "{% else %}[{{ m.role }}]{{ m.content }}{% for call in m.tool_calls or [] %}{% set c = call.function %}CALL{% endfor %}"
    "<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
KNOWN = sorted(FORMATS)


def tokenizer_of(family: str) -> PreTrainedTokenizerFast:
    tokenizer = character_tokenizer()
    tokenizer.chat_template = TEMPLATE.replace("CALL", CALL[family])
    return tokenizer


def chat_of(tokenizer: PreTrainedTokenizerFast) -> ChatFormat:
    return ChatFormat(tokenizer, [tokenizer.eos_token_id])


def task() -> ToolCalls:
    env = gymnasium.make("envs:evotext/Calculator-v0")
    return ToolCalls(env, tools={"one": calculator, "two": twice}, most_calls=3, calls="template")


def twice() -> Tool:
    """A tool with a name and a description that JSON and templates could stumble over."""
    words = {"word": 'a "word" <b>', "times": "50 % «next»"}
    return Tool(name="twice_2", description="Says {it} twice.", parameters=words, run=lambda word, times: word)


def opened() -> tuple[str, str, Tools, list[Any]]:
    observation, info = task().reset(seed=0)
    tools = read_tools(info)
    assert tools is not None and [f["function"]["name"] for f in json.loads(tools.functions)] == [
        "calculator",
        "twice_2",
    ]
    return info["instructions"], observation, tools, info["tools"]["functions"]


@pytest.mark.parametrize("family", KNOWN)
def test_the_prompt_and_the_results_are_the_template_s_own(family: str) -> None:
    tokenizer = tokenizer_of(family)
    chat = chat_of(tokenizer)
    instructions, observation, tools, functions = opened()
    assert chat.shows(tools) and not chat.shows(None)

    def rendered(messages: list[dict[str, str]], **more: Any) -> list[int]:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **more)
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    messages = [{"role": "system", "content": tools.instructions}, {"role": "user", "content": observation}]
    ids, without = chat.open([(instructions, observation)] * 2, [tools, None])
    assert ids == rendered(messages, tools=functions)
    assert without == rendered([{"role": "system", "content": instructions}, messages[1]])
    answer = chat.answer("so %s")
    for results in (["7"], ["50 %s «next»", "8"]):
        reply = chat.reply(["seen"], answer[-1:], [results])[0]
        dialogue = [messages[1], {"role": "assistant", "content": "so %s"}]
        whole = rendered([*dialogue, *[{"role": "tool", "content": result} for result in results]])
        assert chat.open([("", observation)])[0] + answer + reply == whole
    assert chat.reply(["seen"], answer[-1:], [()]) == chat.reply(["seen"], answer[-1:])


@pytest.mark.parametrize("family", KNOWN)
def test_a_call_as_the_template_writes_it_reaches_the_environment(family: str) -> None:
    tokenizer = tokenizer_of(family)
    chat, env = chat_of(tokenizer), task()
    env.reset(seed=0)
    arguments = {"expression": '"1" < 2' if family == "hermes" else "2 * (3 + 4)"}
    function = {"name": "calculator", "arguments": arguments}
    calls = [{"type": "function", "function": function}] * (1 if family == "llama3" else 2)
    asked = {"role": "user", "content": "?"}
    answer = {"role": "assistant", "content": "", "tool_calls": calls}
    text = tokenizer.apply_chat_template([asked, answer], tokenize=False)
    ids = tokenizer(str(text).removeprefix("[user]?<|end|>[assistant]"), add_special_tokens=False)["input_ids"]
    read = chat.text_with_calls(ids)
    found = [json.loads(part.split("</tool_call>")[0]) for part in read.split("<tool_call>")[1:]]
    assert found == [function] * len(calls)
    results = env.step(read)[4]["tool_results"]
    assert all(r.startswith("error: expected + -") if family == "hermes" else r == "14" for r in results)


@pytest.mark.parametrize(
    "text",
    ["42", "", "<tool_call>{bad</tool_call>", '<tool_call>{"name": "a"}</tool_call>', "<tool_call>" * 50, "{" * 500],
)
@pytest.mark.parametrize("family", KNOWN)
def test_any_other_text_stays_what_it_is(family: str, text: str) -> None:
    chat = chat_of(tokenizer_of(family))
    assert chat.text_with_calls(chat.answer(text)) == text


def test_a_template_whose_calls_cannot_be_read_leaves_the_tools_to_the_instructions() -> None:
    instructions, observation, tools, _ = opened()
    without_tools = character_tokenizer()
    without_tools.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|end|>{% endfor %}"
    for tokenizer in (tokenizer_of("unknown"), without_tools, character_tokenizer()):
        chat = chat_of(tokenizer)
        assert not chat.shows(tools)
        assert chat.open([(instructions, observation)], [tools]) == chat.open([(instructions, observation)])
        assert "<tools>" in instructions and "<tools>" not in tools.instructions


def test_a_tokenizer_s_own_response_template_comes_first() -> None:
    tokenizer = tokenizer_of("unknown")
    tokenizer.response_template = {
        "start_anchor": "[assistant]",
        "fields": {
            "tool_calls": {
                "open_pattern": r"(?P<name>\w+) of (?=\{)",
                "close_pattern": "$",
                "content": "json",
                "repeats": True,
                "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
            },
            "content": {},
        },
    }
    chat = chat_of(tokenizer)
    assert chat.shows(opened()[2])
    read = chat.text_with_calls(chat.answer('calculator of {"expression": "1"}'))
    assert '{"name": "calculator", "arguments": {"expression": "1"}}' in read


@pytest.mark.parametrize(
    "named",
    [
        3,
        {},
        {"functions": {1, 2}, "instructions": ""},
        {"functions": [{"function": {"name": "a"}, "b": object()}], "instructions": ""},
    ],
)
def test_strange_tools_are_an_error_of_the_environment(named: Any) -> None:
    with pytest.raises(TypeError, match="expected functions"):
        read_tools({"tools": named})


@pytest.mark.parametrize("family", ["qwen3_5", "unknown"])
def test_a_policy_that_calls_as_its_template_does_is_paid(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    """A scripted policy calls the calculator, and answers with the result; what it read is what the template renders."""
    tokenizer = tokenizer_of(family)
    chat = chat_of(tokenizer)
    heard: list[str] = []

    def complete(self: Session, rows: Any, blocks: list[list[int]], **_: Any) -> list[Completion]:
        heard.append(tokenizer.decode(blocks[0]))
        expression = heard[0].split("[user]")[1].split("<|end|>")[0]
        answer = f"CALL calculator({expression})"
        if family == "qwen3_5":
            answer = (
                f"<tool_call><function=calculator><parameter=expression>{expression}</parameter></function></tool_call>"
            )
        if len(heard) == 2:
            answer = heard[1].split("<r>" if family == "qwen3_5" else "RESULT ")[1].split("<")[0]
        return [Completion(ids=chat.answer(answer), logprobs=[], ended=True)]

    monkeypatch.setattr(Session, "complete", complete)
    model = replace(small_model(), chat=chat, tokenizer=tokenizer, context_length=5000)
    batch = Collector(model, instantiate(compose("check_env", ["env=calculator"]).env), rows=1).collect(plan(rows=1))
    assert float(batch.reward_BT.sum()) == 1.0 and len(heard) == 2
    assert heard[0].startswith("[tools {" if family == "qwen3_5" else "[system]")
    assert ("<r>" in heard[1]) == (family == "qwen3_5")

"""Tools that a policy calls before it answers, each call a turn.

A model whose chat template has tools is shown them by it, and its calls are read by that template's format, whatever it is, and
reach this wrapper in the first of these two forms (`evotext.models.tool_calls`). Other models are told of one in the
instructions. Both are understood, and answered in the form of the call:

    <tool_call>{"name": "calculator", "arguments": {"expression": "12 * 34"}}</tool_call>      Hermes, Qwen and others
    CALL calculator(12 * 34)                                                                    any text, on a line of its own

A text with a call never reaches the environment; what the policy says beside the call is ignored. Nothing is evaluated: a
tool gets its arguments as texts, and says what is wrong with them by ValueError.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, final

import gymnasium
from gymnasium.utils import RecordConstructorArgs

from evotext.models.tool_calls import KEY, RESULTS
from evotext.validation import PositiveInt, checked

from . import expressions
from .extraction import WHITE_SPACE

OPENING, CLOSING = "<tool_call>", "</tool_call>"
LONGEST_CALL = 2000
MOST_AT_ONCE = 4
_PLAIN = re.compile(r"^CALL[ \t]+(\w{1,64})[ \t]*\((.*)$", re.MULTILINE | re.ASCII)

Step = tuple[str, Any, bool, bool, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function that a policy may call."""

    name: str
    """A word of letters, digits and underscores."""
    description: str
    """Its purpose, in a sentence."""
    parameters: Mapping[str, str]
    """A description of each parameter; all are required texts."""
    run: Callable[..., str]
    """Called with the parameters by name; returns the result. Raises ValueError, which says why, for bad ones."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call as it was read; with neither name nor arguments where `wrong` says why."""

    name: str = ""
    arguments: Mapping[str, str] | Sequence[str] = ()
    """Arguments by name, or in the order of the tool's parameters."""
    wrong: str = ""
    """The fault in the call; empty for one that could be read."""
    plain: bool
    """Whether it came as `CALL name(...)`."""


@final
class ToolCalls(gymnasium.Wrapper[str, str, str, str], RecordConstructorArgs):
    """Lets the policy call tools within an episode: the next observation holds the results.

    tools: by any names, functions that each make one; `_partial_: true` in a configuration.
    most_calls: of an episode; further ones are told so.
    calls: `template`: a model's chat template shows the tools where it can, and the instructions of other models show calls as
    `hermes` does. `hermes`, `plain`: the instructions do, for every model.
    A malformed call, an unknown tool and arguments that it rejects get a message; any other exception of a tool is a fault
    of the environment.
    """

    @checked
    def __init__(
        self,
        env: gymnasium.Env[str, str],
        *,
        tools: Mapping[str, Callable[[], Tool]],
        most_calls: PositiveInt,
        calls: Literal["template", "hermes", "plain"],
    ) -> None:
        RecordConstructorArgs.__init__(self, tools=tools, most_calls=most_calls, calls=calls)
        super().__init__(env)
        self._tools = {tool.name: tool for tool in (make() for make in tools.values())}
        self._signatures = [_signature(tool) for tool in self._tools.values()]
        self._shown = _plain_instructions(self._tools.values(), most_calls)
        if calls != "plain":
            self._shown = _hermes_instructions(self._signatures, most_calls)
        self._by_template = calls == "template"
        self._most, self._made = most_calls, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode; its instructions describe the tools, and `info["tools"]` has them for a chat template."""
        self._made = 0
        observation, info = self.env.reset(seed=seed, options=options)
        task = info.get("instructions", "")
        info = {**info, "instructions": f"{task}\n\n{self._shown}".strip()}
        if self._by_template:
            limit = f"You may call tools before you answer, at most {self._most} times."
            info[KEY] = {"functions": deepcopy(self._signatures), "instructions": f"{task}\n\n{limit}".strip()}
        return observation, info

    def step(self, action: str) -> Step:
        """Run the calls in the text, or pass on a text without any."""
        made = calls_in(action)
        if not made:
            observation, reward, terminated, truncated, info = self.env.step(action)
            return observation, reward, terminated, truncated, info
        results = [self._result(call) for call in made]
        shown = [
            f"RESULT {result}" if call.plain else f"<tool_response>\n{result}\n</tool_response>"
            for call, result in zip(made, results, strict=True)
        ]
        return "\n".join(shown), 0.0, False, False, {RESULTS: results}

    def _result(self, call: Call) -> str:
        self._made += 1
        if call.wrong:
            return call.wrong
        if self._made > self._most:
            return f"error: expected at most {self._most} calls; give your answer"
        tool = self._tools.get(call.name)
        if tool is None:
            return f"error: expected one of the tools {', '.join(self._tools)}, got {call.name[:40]!r}"
        names = list(tool.parameters)
        given = call.arguments
        if not isinstance(given, Mapping):
            given = dict(zip(names, given, strict=True)) if len(given) == len(names) else {}
        if set(given) != set(names):
            return f"error: expected the arguments {', '.join(names)} of {tool.name}"
        try:
            return tool.run(**given)
        except ValueError as error:
            return f"error: {error}"


def calls_in(text: str) -> list[Call]:
    """Return the calls in the text, in order, at most `MOST_AT_ONCE`; total and linear in any text."""
    if OPENING in text:
        calls = []
        for part in text.split(OPENING, MOST_AT_ONCE + 1)[1 : MOST_AT_ONCE + 1]:
            inside, closed, _ = part.partition(CLOSING)
            # Some templates end the turn at the closing tag, which is then left out.
            calls.append(_hermes(inside if closed else part))
        return calls
    return [_plain(match[1], match[2]) for match, _ in zip(_PLAIN.finditer(text), range(MOST_AT_ONCE), strict=False)]


def _hermes(text: str) -> Call:
    """Read the JSON of a call."""
    wanted = '{"name": "...", "arguments": {...}}'
    if len(text) > LONGEST_CALL:
        return Call(plain=False, wrong=f"error: expected a call of at most {LONGEST_CALL} characters")
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return Call(plain=False, wrong=f"error: expected JSON {wanted}")
    if not isinstance(read, dict) or not isinstance(read.get("name"), str):
        return Call(plain=False, wrong=f"error: expected {wanted}")
    arguments = read.get("arguments", {})
    if not isinstance(arguments, dict):
        return Call(plain=False, wrong=f"error: expected {wanted}")
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in arguments.items()}
    return Call(plain=False, name=read["name"], arguments=texts)


def _plain(name: str, rest: str) -> Call:
    """Read what follows `CALL name(`: to the last bracket of the line; commas part the arguments."""
    inside, closed, after = rest[:LONGEST_CALL].rpartition(")")
    if not closed or after.strip(WHITE_SPACE) or len(rest) > LONGEST_CALL:
        return Call(plain=True, wrong=f"error: expected a line CALL {name}(arguments)")
    return Call(plain=True, name=name, arguments=[part.strip(WHITE_SPACE) for part in inside.split(",")])


def _signature(tool: Tool) -> dict[str, Any]:
    """Return the tool as chat templates take it."""
    properties = {name: {"type": "string", "description": text} for name, text in tool.parameters.items()}
    parameters = {"type": "object", "properties": properties, "required": list(tool.parameters)}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _plain_instructions(tools: Iterable[Tool], most_calls: int) -> str:
    lines = [f"CALL {tool.name}({', '.join(tool.parameters)}): {tool.description}" for tool in tools]
    head = f"You may use a tool before you answer, at most {most_calls} times, by such a line and nothing else:"
    return "\n".join([head, *lines])


def _hermes_instructions(signatures: Iterable[dict[str, Any]], most_calls: int) -> str:
    """Return how to call the tools in the words of Hermes' and Qwen's templates."""
    return "\n".join(
        [
            f"You may call functions before you answer, at most {most_calls} times. Signatures:",
            "<tools>",
            *(json.dumps(signature, ensure_ascii=False) for signature in signatures),
            "</tools>",
            "For a call, return a JSON object with the function's name and arguments within tags, and nothing else:",
            f'{OPENING}\n{{"name": <function-name>, "arguments": <args-json-object>}}\n{CLOSING}',
        ]
    )


def calculator() -> Tool:
    """Return a tool that evaluates arithmetic by `envs.expressions`: + - * / and brackets over numbers of up to four digits."""

    def run(expression: str) -> str:
        result = expressions.evaluate(expression)
        if result is None:
            raise ValueError(
                f"expected + - * / and brackets over numbers of up to {expressions.LONGEST_NUMBER} digits, in at most "
                f"{expressions.LONGEST} characters"
            )
        value = Fraction(result.value)
        return str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"

    return Tool(
        name="calculator",
        description="Evaluates arithmetic: + - * / and brackets over numbers of up to four digits.",
        parameters={"expression": "e.g. 12 * (34 - 5)"},
        run=run,
    )

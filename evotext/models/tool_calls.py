"""Tools in a model's own words: its chat template shows their signatures, and its calls are read by the template's format.

transformers renders tools (`apply_chat_template(tools=...)`) and reads calls by a response template (`parse_response`). Few
tokenizers come with one, so that some common formats are listed here. A format is a model's if it reads the call that the
model's chat template writes; a model without one is told of tools by the task's instructions, as any text.

Environments get every call in one form, that of Hermes' and Qwen's templates, whatever the model's own:

    <tool_call>{"name": "calculator", "arguments": {"expression": "12 * 34"}}</tool_call>
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

KEY = "tools"
"""The key in the `info` of `reset`: a mapping with `functions` and `instructions` (`Tools`)."""
RESULTS = "tool_results"
"""The key in a step's `info`: the results of the calls that it has answered, a list of texts."""


@dataclass(frozen=True, kw_only=True)
class Tools:
    """The tools of an episode."""

    functions: str
    """Their signatures, a JSON list as `apply_chat_template(tools=...)` takes it."""
    names: tuple[str, ...]
    """Their names."""
    instructions: str
    """The task's instructions where the chat template shows the signatures: they need not be in there."""


def read_tools(info: Mapping[str, Any]) -> Tools | None:
    """Return the tools that the `info` of `reset` names, None without any. Raise TypeError for what is none."""
    named = info.get(KEY)
    if named is None:
        return None
    try:
        functions, instructions = list(named["functions"]), named["instructions"]
        names = tuple(str(each["function"]["name"]) for each in functions)
        text = json.dumps(functions, ensure_ascii=False)
    except (TypeError, KeyError, ValueError) as error:
        raise TypeError(f"expected functions (JSON) and instructions in info[{KEY!r}], got {named!r:.80}") from error
    return Tools(functions=text, names=names, instructions=str(instructions))


def _called(name: Any, arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def _format(**calls: Any) -> dict[str, Any]:
    return {"start_anchor": "\0", "fields": {"tool_calls": {"repeats": True} | calls, "content": {}}}


FORMATS: Mapping[str, dict[str, Any]] = {
    "hermes": _format(
        open="<tool_call>",
        close="</tool_call>",
        content="json",
        transform=_called("{content.name}", "{content.arguments}"),
    ),
    "qwen3_5": _format(
        open_pattern=r"<tool_call>\s*<function=(?P<name>[^>\n]+)>",
        close="</tool_call>",
        content="xml-inline",
        content_args={"tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\s*(?P<value>.*?)\s*</parameter>"},
        transform=_called("{name}", "{content}"),
    ),
    "llama3": _format(
        open_pattern=r'^\s*\{"name":\s*"(?P<name>[^"]+)",\s*"parameters":\s*',
        close_pattern=r"\}\s*$",
        content="json",
        transform=_called("{name}", "{content}"),
    ),
}
"""Response templates of transformers, by the model that they are best known from."""

_EXAMPLE = _called("f0", {"key": "value 1"})
_QUESTION = {"role": "user", "content": "question"}


def calls_format(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any] | None:
    """Return the response template that reads the calls which the tokenizer's chat template writes; None if there is none."""
    try:
        prompt = tokenizer.apply_chat_template([_QUESTION], add_generation_prompt=True, tokenize=False)
        answer = {"role": "assistant", "content": "", "tool_calls": [_EXAMPLE | {"id": "call00000"}]}
        whole = tokenizer.apply_chat_template([_QUESTION, answer], tokenize=False)
    except (jinja2.TemplateError, TypeError, ValueError):  # templates fail in their own ways on what they do not know
        return None
    written = str(whole)[len(commonprefix([str(prompt), str(whole)])) :].rstrip()  # noqa: RUF071 (of texts, indeed)
    for end in {tokenizer.eos_token, *tokenizer.all_special_tokens} - {None}:
        written = written.removesuffix(str(end))
    own = tokenizer.response_template
    for known in (*([own] if own else []), *FORMATS.values()):
        if _read(tokenizer, written, known) == [_EXAMPLE["function"]]:
            return known
    return None


def in_one_form(tokenizer: PreTrainedTokenizerBase, text: str, known: dict[str, Any]) -> str:
    """Return the calls in the text as environments read them, nothing if there are none, and the text if one is malformed."""
    calls = _read(tokenizer, text, known)
    if calls is None:
        return text
    return "\n".join(f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in calls)


def _read(tokenizer: PreTrainedTokenizerBase, text: str, known: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return names and arguments of the calls in the text; None if one is malformed."""
    try:
        calls = tokenizer.parse_response(text, known, prefix="").get("tool_calls", [])
        return [{"name": call["function"]["name"], "arguments": call["function"]["arguments"]} for call in calls]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None

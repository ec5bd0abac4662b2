"""Converts between an environment's text and token ids.

A conversation is never tokenized again: each turn only appends ids to what the model has read and written, so that the
tokens that the policy is trained on are exactly those that it generated.

The chat template is rendered once with placeholders and cut into constant pieces, since rendering it for every row of
every turn would cost more than a small model's forward pass.
"""

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from evotext.models.tool_calls import Tools, calls_format, in_one_form

INSTRUCTIONS, OBSERVATION, ANSWER, NEXT = "«instructions»", "«observation»", "«answer»", "«next»"
_PLACEHOLDER = re.compile("|".join((INSTRUCTIONS, OBSERVATION, NEXT)))

Conversation = Sequence[tuple[str, str]]
"""Pairs of an observation and the answer to it."""


class ChatFormat:
    """Encodes observations and decodes completions for one tokenizer.

    With a chat template, the observation is a user message and the environment's instructions the system message (or
    the first user message's beginning, where the template knows no system role; a template may also leave them out).
    Without one, instructions, observation and answer follow each other on lines, and a newline ends an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_ids: Sequence[int]) -> None:
        self.tokenizer = tokenizer
        self.end_ids = frozenset(end_ids)
        self._has_template = tokenizer.chat_template is not None
        if self._has_template:
            self._with_instructions, self._without_instructions, self._continuation = self._cut_template()
        else:
            newline = tokenizer.encode("\n", add_special_tokens=False)
            self.end_ids |= {newline[-1]} if len(newline) == 1 else set()
            self._with_instructions = f"{INSTRUCTIONS}\n\n{OBSERVATION}\n"
            self._without_instructions = f"{OBSERVATION}\n"
            self._continuation = f"\n{NEXT}\n"
        if not self.end_ids:
            raise ValueError("the tokenizer has no end token: set `eos_token` in its configuration")
        self._end_texts = {i: tokenizer.decode([i], skip_special_tokens=False) for i in self.end_ids}
        self._end_id = tokenizer.eos_token_id if tokenizer.eos_token_id in self.end_ids else min(self.end_ids)
        self._with_tools: dict[Tools, str | None] = {}
        self._with_results: dict[int, str | None] = {}

    def _cut_template(self) -> tuple[str, str, str]:
        """Return the rendered opening with and without instructions, and the text between an answer and the next one."""
        without = self._render([{"role": "user", "content": OBSERVATION}])
        opening = self._opening()
        dialogue = [
            {"role": "user", "content": OBSERVATION},
            {"role": "assistant", "content": ANSWER},
            {"role": "user", "content": NEXT},
        ]
        _, _, continuation = self._render(dialogue).partition(ANSWER)
        return opening, without, continuation

    def _opening(self, **tools: Any) -> str:
        try:
            system = {"role": "system", "content": INSTRUCTIONS}
            return self._render([system, {"role": "user", "content": OBSERVATION}], **tools)
        except jinja2.TemplateError:  # e.g. Gemma's template raises on a system message
            return self._render([{"role": "user", "content": f"{INSTRUCTIONS}\n\n{OBSERVATION}"}], **tools)

    def _render(self, messages: list[dict[str, str]], **tools: Any) -> str:
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **tools)
        assert isinstance(text, str)
        return text

    @cached_property
    def _calls_format(self) -> dict[str, Any] | None:
        return calls_format(self.tokenizer) if self._has_template else None

    def shows(self, tools: Tools | None) -> bool:
        """Return whether the chat template shows these tools, and its calls can be read."""
        return tools is not None and self._opening_with(tools) is not None

    def _opening_with(self, tools: Tools) -> str | None:
        """Return the opening in which the template shows the tools; None if it omits one or its calls cannot be read."""
        if tools not in self._with_tools:
            try:
                shown = "" if self._calls_format is None else self._opening(tools=json.loads(tools.functions))
            except (jinja2.TemplateError, TypeError):  # templates look into what they are given
                shown = ""
            told = shown and all(json.dumps(name, ensure_ascii=False)[1:-1] in shown for name in tools.names)
            self._with_tools[tools] = shown if told else None
        return self._with_tools[tools]

    def _continuation_with(self, results: int) -> str | None:
        """Return the text between an answer and the next one if so many results of tools come between; None if it cannot be."""
        if results not in self._with_results:
            dialogue = [{"role": "user", "content": OBSERVATION}, {"role": "assistant", "content": ANSWER}]
            try:
                text = self._render([*dialogue, *[{"role": "tool", "content": NEXT}] * results]).partition(ANSWER)[2]
            except (jinja2.TemplateError, TypeError):  # e.g. Mistral's wants the calls that they belong to
                text = ""
            self._with_results[results] = text if text.count(NEXT) == results else None
        return self._with_results[results]

    def open(self, openings: Sequence[tuple[str, str]], tools: Sequence[Tools | None] = ()) -> list[list[int]]:
        """Return the ids of the first prompt for each (instructions, observation); empty instructions are left out.

        tools: of each; those that the chat template shows have their own instructions.
        """
        texts = []
        for (instructions, observation), own in zip(openings, tools or [None] * len(openings), strict=True):
            text = self._with_instructions if instructions else self._without_instructions
            if own is not None and (shown := self._opening_with(own)) is not None:
                text, instructions = shown, own.instructions
            texts.append(_fill(text, {INSTRUCTIONS: instructions, OBSERVATION: observation}))
        return self._encode(texts, special=not self._has_template)

    def reply(
        self, observations: Sequence[str], last_ids: Sequence[int], results: Sequence[Sequence[str]] = ()
    ) -> list[list[int]]:
        """Return the ids from after each completion (whose last token is given) to where the next completion starts.

        results: of tools whose calls the completion made, if the chat template shows them; they stand for the observation.
        """
        texts = []
        for observation, last, own in zip(observations, last_ids, results or [()] * len(last_ids), strict=True):
            text, said = self._continuation, [observation]
            if own and (with_results := self._continuation_with(len(own))) is not None:
                text, said = with_results, list(own)
            if last in self._end_texts:  # the policy has written the template's end token itself
                text = text.removeprefix(self._end_texts[last])
            texts.append(text.replace("%", "%%").replace(NEXT, "%s") % tuple(said))
        return self._encode(texts, special=False)

    def answer(self, text: str) -> list[int]:
        """Return the ids of an answer that the policy might have written, end token included: for demonstrations."""
        return [*self._encode([text], special=False)[0], self._end_id]

    def conversation(self, turns: Conversation, instructions: str = "") -> tuple[list[int], list[bool]]:
        """Return the ids of a whole conversation, in the pieces in which it would be generated, and a mask of the answers."""
        ids: list[int] = []
        mask: list[bool] = []
        for observation, answer in turns:
            block = self.reply([observation], ids[-1:])[0] if ids else self.open([(instructions, observation)])[0]
            written = self.answer(answer)
            ids += block + written
            mask += [False] * len(block) + [True] * len(written)
        return ids, mask

    def text(self, completions: Sequence[Sequence[int]]) -> list[str]:
        """Return the completions as the environment reads them: without end and other special tokens."""
        bare = [[i for i in ids if i not in self.end_ids] for ids in completions]
        texts = self.tokenizer.batch_decode(bare, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return list(map(str, texts))

    def text_with_calls(self, ids: Sequence[int]) -> str:
        """Return a completion as `text` does, but its calls of tools, if there are any, in the form that environments read."""
        (text,) = self.text([ids])
        if self._calls_format is None:
            return text
        whole = str(self.tokenizer.decode([i for i in ids if i not in self.end_ids], skip_special_tokens=False))
        return in_one_form(self.tokenizer, whole, self._calls_format) or text

    def _encode(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        unique = list(dict.fromkeys(texts))  # a population answers the same few prompts
        if not unique:
            return []
        ids = self.tokenizer(unique, add_special_tokens=special, return_attention_mask=False)["input_ids"]
        table = dict(zip(unique, ids, strict=True))
        return [table[text] for text in texts]


def _fill(template: str, values: dict[str, str]) -> str:
    """Fill in the values in one pass, so that a value that looks like a placeholder stays as it is."""
    return _PLACEHOLDER.sub(lambda match: values.get(match.group(), match.group()), template)

"""Converts between an environment's text and token ids.

A conversation is never tokenized again: each turn only appends ids to what the model has read and written, so that the
tokens that the policy is trained on are exactly those that it generated.

The chat template is rendered once with placeholders and cut into constant pieces, since rendering it for every row of
every turn would cost more than a small model's forward pass.
"""

import re
from collections.abc import Sequence

import jinja2
from transformers import PreTrainedTokenizerBase

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

    def _cut_template(self) -> tuple[str, str, str]:
        """Return the rendered opening with and without instructions, and the text between an answer and the next one."""
        without = self._render([{"role": "user", "content": OBSERVATION}])
        try:
            system = {"role": "system", "content": INSTRUCTIONS}
            opening = self._render([system, {"role": "user", "content": OBSERVATION}])
        except jinja2.TemplateError:  # e.g. Gemma's template raises on a system message
            opening = self._render([{"role": "user", "content": f"{INSTRUCTIONS}\n\n{OBSERVATION}"}])
        dialogue = [
            {"role": "user", "content": OBSERVATION},
            {"role": "assistant", "content": ANSWER},
            {"role": "user", "content": NEXT},
        ]
        _, _, continuation = self._render(dialogue).partition(ANSWER)
        return opening, without, continuation

    def _render(self, messages: list[dict[str, str]]) -> str:
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert isinstance(text, str)
        return text

    def open(self, openings: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Return the ids of the first prompt for each (instructions, observation); empty instructions are left out."""
        texts = [
            _fill(
                self._with_instructions if instructions else self._without_instructions,
                {INSTRUCTIONS: instructions, OBSERVATION: observation},
            )
            for instructions, observation in openings
        ]
        return self._encode(texts, special=not self._has_template)

    def reply(self, observations: Sequence[str], last_ids: Sequence[int]) -> list[list[int]]:
        """Return the ids from after each completion (whose last token is given) to where the next completion starts."""
        texts = []
        for observation, last in zip(observations, last_ids, strict=True):
            text = self._continuation
            if last in self._end_texts:  # the policy has written the template's end token itself
                text = text.removeprefix(self._end_texts[last])
            texts.append(_fill(text, {NEXT: observation}))
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

"""Chat formats: what is cut out of a template equals what the template itself renders."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from evotext.models.character_tokenizer import CHARACTERS, character_tokenizer
from evotext.models.chat import ChatFormat

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
PRINTABLE = st.text(alphabet=CHARACTERS, max_size=40)


def tokenizer_with(template: str | None) -> PreTrainedTokenizerFast:
    tokenizer = character_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def render(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, str]]) -> list[int]:
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@given(instructions=PRINTABLE, first=PRINTABLE, answer=PRINTABLE, second=PRINTABLE)
def test_the_pieces_join_to_the_template_s_own_rendering(
    instructions: str, first: str, answer: str, second: str
) -> None:
    tokenizer = tokenizer_with(CHATML)
    chat = ChatFormat(tokenizer, [tokenizer.eos_token_id])
    messages = [{"role": "system", "content": instructions}] if instructions else []
    messages.append({"role": "user", "content": first})
    ids = chat.open([(instructions, first)])[0]
    assert ids == render(tokenizer, messages)
    written = chat.answer(answer)
    ids += written + chat.reply([second], [written[-1]])[0]
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": second}]
    assert ids == render(tokenizer, messages)


def test_a_cut_off_answer_is_closed_by_the_template() -> None:
    tokenizer = tokenizer_with(CHATML)
    chat = ChatFormat(tokenizer, [tokenizer.eos_token_id])
    unfinished = tokenizer("12", add_special_tokens=False)["input_ids"]
    reply = chat.reply(["next"], [unfinished[-1]])[0]
    assert tokenizer.decode(reply).startswith("<|end|>\n<|im_start|>user\nnext<|end|>")


def test_instructions_go_to_the_user_where_the_template_knows_no_system_role() -> None:
    chat = ChatFormat(tokenizer_with(NO_SYSTEM), [3])
    text = character_tokenizer().decode(chat.open([("Be brief.", "sort 21")])[0])
    assert text == "[user]Be brief.\n\nsort 21<|end|>[assistant]"


def test_without_a_template_a_newline_ends_the_answer() -> None:
    tokenizer = tokenizer_with(None)
    chat = ChatFormat(tokenizer, [3])
    newline = tokenizer.encode("\n", add_special_tokens=False)[0]
    assert chat.end_ids == {3, newline}
    assert tokenizer.decode(chat.open([("Sort.", "21")])[0]) == "Sort.\n\n21\n"
    assert tokenizer.decode(chat.reply(["43"], [newline])[0]) == "43\n"
    assert tokenizer.decode(chat.reply(["43"], [3])[0]) == "\n43\n"


def test_the_built_in_format_leaves_instructions_out() -> None:
    chat = ChatFormat(character_tokenizer(), [3])
    assert chat.open([("A long instruction.", "sort 21")]) == chat.open([("", "sort 21")])


@given(text=PRINTABLE)
def test_text_undoes_answer(text: str) -> None:
    assume("<|" not in text)  # may spell a special token
    chat = ChatFormat(character_tokenizer(), [3])
    assert chat.text([chat.answer(text)]) == [text]


@given(text=st.text(max_size=60))
def test_any_observation_can_be_read(text: str) -> None:
    chat = ChatFormat(character_tokenizer(), [3])
    ids = chat.open([(text, text)])[0] + chat.reply([text], [3])[0]
    assert all(0 <= i < len(character_tokenizer()) for i in ids)


@pytest.mark.parametrize("text", ["«next»", "«observation»", "«instructions»"])
def test_a_text_that_looks_like_a_placeholder_stays_as_it_is(text: str) -> None:
    class Spy(ChatFormat):
        def _encode(self, texts, special):  # type: ignore[no-untyped-def]
            return texts

    chat = Spy(tokenizer_with(CHATML), [3])
    assert f"<|im_start|>user\n{text}<|end|>" in chat.open([("", text)])[0]
    assert f"<|im_start|>user\n{text}<|end|>" in chat.reply([text], [3])[0]

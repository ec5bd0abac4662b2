"""A character tokenizer for the built-in model: an ordinary Hugging Face tokenizer with a chat template."""

import string

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, ANSWER, END = "<|pad|>", "<|unknown|>", "<|answer|>", "<|end|>"
CHARACTERS = "\n" + " " + string.digits + string.ascii_letters + string.punctuation

# A turn is the observation, a mark where the answer begins, the answer, an end mark. Instructions (system messages) are
# left out: a model of this size knows its tasks by their format, and every token costs time.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}{{ message.content }}{{ '<|answer|>' }}"
    "{% elif message.role == 'assistant' %}{{ message.content }}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
)


def character_tokenizer(further: str = "") -> PreTrainedTokenizerFast:
    """Return a tokenizer of printable ASCII, the newline and `further` characters; the rest is `<|unknown|>`."""
    special = [PAD, UNKNOWN, ANSWER, END]
    vocabulary = {token: i for i, token in enumerate([*special, *CHARACTERS, *further])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[ANSWER],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )

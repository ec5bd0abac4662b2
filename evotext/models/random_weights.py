"""Models with random weights in the shapes of real ones, for measurements: speed does not depend on the weights."""

import sys

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from evotext.distributed.sharding import RolloutWeights
from evotext.models.character_tokenizer import character_tokenizer
from evotext.models.chat import ChatFormat
from evotext.models.dtype import DType, resolve
from evotext.models.language_model import LanguageModel
from evotext.models.source import Outline, Parallel, loading_device
from evotext.models.tensor_parallel import among_groups
from evotext.validation import PositiveInt, checked

CONTEXT_LENGTH = 512


def _qwen2(hidden: int, layers: int, inner: int, heads: int, kv_heads: int, vocabulary: int) -> PreTrainedConfig:
    return Qwen2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=True,
        max_position_embeddings=CONTEXT_LENGTH,
    )


def shapes() -> dict[str, PreTrainedConfig]:
    """Return configurations by name: 1M is that of `model=tiny`, 0.5B and 1.5B of Qwen2.5, 8B of Qwen3."""
    return {
        "1M": LlamaConfig(
            hidden_size=128,
            num_hidden_layers=4,
            intermediate_size=512,
            num_attention_heads=4,
            num_key_value_heads=4,
            vocab_size=len(character_tokenizer()),
            tie_word_embeddings=True,
            max_position_embeddings=CONTEXT_LENGTH,
        ),
        "25M": _qwen2(512, 7, 1344, 8, 8, 8192),
        "100M": _qwen2(768, 12, 2048, 12, 12, 16384),
        "0.5B": _qwen2(896, 24, 4864, 14, 2, 151936),
        "1.5B": _qwen2(1536, 28, 8960, 12, 2, 151936),
        "8B": Qwen3Config(
            hidden_size=4096,
            num_hidden_layers=36,
            intermediate_size=12288,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=128,
            vocab_size=151936,
            tie_word_embeddings=False,
            max_position_embeddings=CONTEXT_LENGTH,
        ),
    }


class RandomModel:
    """A model of one of `shapes`, with the same random weights each time.

    size: the shape's name.
    dtype: of the weights (`evotext.models.dtype`). parallel, parallel_size, rollout_weights: as in `HuggingFaceModel`.
    """

    @checked
    def __init__(
        self,
        *,
        size: str,
        dtype: DType,
        parallel: Parallel = None,
        parallel_size: PositiveInt | None = None,
        rollout_weights: RolloutWeights = "layers",
    ) -> None:
        if size not in shapes():
            raise ValueError(f"size: expected one of {', '.join(shapes())}, got {size!r}")
        self.size, self._dtype, self._parallel, self._parallel_size = size, dtype, parallel, parallel_size

    def outline(self) -> Outline:
        """Return tokenizer and context length (`ModelSource`)."""
        # The vocabulary is that of a tokenizer, so that whatever is generated can be read.
        tokenizer = character_tokenizer(further=_further(shapes()[self.size].vocab_size))
        chat = ChatFormat(tokenizer, [tokenizer.eos_token_id])
        return Outline(chat=chat, context_length=CONTEXT_LENGTH, config=shapes()[self.size])

    def load(self, device: torch.device) -> LanguageModel:
        """Return the model on the device (`ModelSource`)."""
        config = shapes()[self.size]
        outline = self.outline()
        tokenizer = outline.chat.tokenizer
        config.pad_token_id, config.eos_token_id, config.bos_token_id = 0, tokenizer.eos_token_id, None
        dtype = resolve(self._dtype, device, config.hidden_size)
        device = loading_device(self._parallel, device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
            torch.manual_seed(0)
            network = AutoModelForCausalLM.from_config(config, dtype=dtype)
        parts = among_groups(network, self._parallel, self._parallel_size)
        return LanguageModel(
            name=self.size,
            network=network.eval(),
            tokenizer=tokenizer,
            chat=outline.chat,
            context_length=CONTEXT_LENGTH,
            parts=parts,
        )


def _further(vocabulary: int) -> str:
    """Return characters that fill the tokenizer up to this many tokens."""
    missing = vocabulary - len(character_tokenizer())
    usable = (c for c in range(0x4E00, sys.maxunicode + 1) if not 0xD800 <= c < 0xE000)
    return "".join(chr(c) for c, _ in zip(usable, range(missing), strict=False))

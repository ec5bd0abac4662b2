"""`model=tiny`: a Llama of about one million parameters on characters, warmed up once and cached.

It is warmed up on demonstrations that mix behaviours on purpose, so that it knows the tasks' formats and has the skill
but not the habit: success of 0.1 to 0.3 before tuning on most tasks (docs/results/environments.md has all of them), the
situation that post-training starts from.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from evotext.distributed.sharding import RolloutWeights
from evotext.models.character_tokenizer import character_tokenizer
from evotext.models.chat import ChatFormat, Conversation
from evotext.models.language_model import LanguageModel
from evotext.models.model_cache import ModelCache
from evotext.models.source import Outline, Parallel
from evotext.models.warm_up import warm_up
from evotext.validation import NonNegativeInt, PositiveFloat, PositiveInt, checked

Size = Literal["1M", "8M", "25M"]
SHAPES: Mapping[Size, Mapping[str, int]] = {
    "1M": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4},
    "8M": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 8},
    "25M": {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 8},
}

# This many demonstrations enter the cache's key.
FINGERPRINT_DEMONSTRATIONS = 256


class TinyModel:
    """The built-in model: hyperparameters of the architecture and of its warm-up.

    size: a shape of `SHAPES`; hidden_size, intermediate_size, layers and heads replace its own.
    demonstrations: called with (count, seed), yields conversations (`evotext.models.chat`).
    cache_folder: where finished models are kept; None takes the user's cache folder.
    parallel, rollout_weights: as in `HuggingFaceModel`.
    """

    @checked
    def __init__(
        self,
        *,
        size: Size = "1M",
        hidden_size: PositiveInt | None = None,
        intermediate_size: PositiveInt | None = None,
        layers: PositiveInt | None = None,
        heads: PositiveInt | None = None,
        context_length: PositiveInt,
        steps: NonNegativeInt,
        batch_size: PositiveInt,
        learning_rate: PositiveFloat,
        warm_up_seed: NonNegativeInt,
        demonstrations: Callable[[int, int], Iterable[Conversation]],
        cache_folder: str | None,
        parallel: Parallel = None,
        rollout_weights: RolloutWeights = "layers",
    ) -> None:
        own = {"hidden_size": hidden_size, "intermediate_size": intermediate_size}
        own |= {"num_hidden_layers": layers, "num_attention_heads": heads}
        shape = {**SHAPES[size], **{key: value for key, value in own.items() if value is not None}}
        width, heads = shape["hidden_size"], shape["num_attention_heads"]
        if width % heads or width // heads % 2:
            raise ValueError(
                f"heads: expected a divisor of hidden_size={width} that leaves an even head size, got {heads}"
            )
        self.context_length, self.steps, self.batch_size = context_length, steps, batch_size
        self.learning_rate, self.warm_up_seed, self.demonstrations = learning_rate, warm_up_seed, demonstrations
        self._cache = ModelCache(cache_folder)
        self._shape = {**shape, "num_key_value_heads": heads, "max_position_embeddings": context_length}

    def outline(self) -> Outline:
        """Return tokenizer and context length; needs no weights."""
        tokenizer = character_tokenizer()
        chat = ChatFormat(tokenizer, [tokenizer.eos_token_id])
        return Outline(chat=chat, context_length=self.context_length, config=self._config())

    def load(self, device: torch.device) -> LanguageModel:
        """Return the warmed-up model from the cache; the first call anywhere trains it, others wait for that one."""
        folder = self._cache.get(self._key(), self._build)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return LanguageModel(
            name="tiny",
            network=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval(),
            tokenizer=tokenizer,
            chat=ChatFormat(tokenizer, [tokenizer.eos_token_id]),
            context_length=self.context_length,
        )

    def _key(self) -> str:
        """Return a digest of all that the weights follow from: shape, warm-up, demonstrations, tokenizer."""
        sample = list(self.demonstrations(FINGERPRINT_DEMONSTRATIONS, self.warm_up_seed))
        recipe = [self._shape, self.steps, self.batch_size, self.learning_rate, self.warm_up_seed, sample]
        recipe += [character_tokenizer().get_vocab(), character_tokenizer().chat_template]
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]

    def _config(self) -> LlamaConfig:
        tokenizer = character_tokenizer()
        ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
        # The customary deviation of 0.02 suits wide models; at this width it starts with vanishing signals.
        deviation = self._shape["hidden_size"] ** -0.5
        return LlamaConfig(
            vocab_size=len(tokenizer), tie_word_embeddings=True, initializer_range=deviation, **ends, **self._shape
        )

    def _build(self, folder: Path) -> None:
        tokenizer = character_tokenizer()
        config = self._config()
        with torch.random.fork_rng(devices=[]):  # transformers initialises from the global generator
            torch.manual_seed(self.warm_up_seed)
            network = LlamaForCausalLM(config)
        conversations = self.demonstrations(self.steps * self.batch_size, self.warm_up_seed)
        with _progress(self.steps) as on_step:
            warm_up(
                network,
                self.outline().chat,
                conversations,
                steps=self.steps,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                seed=self.warm_up_seed,
                on_step=on_step,
            )
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[int, float], None]]:
    console, title = Console(stderr=True), "warming up the built-in model for this task (once, then cached)"
    columns = (TextColumn("[bold]{task.description}"), BarColumn(), TextColumn("loss {task.fields[loss]:.3f}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        if not console.is_terminal:
            console.print(title)
        task = bar.add_task(title, total=steps, loss=float("nan"))
        yield lambda done, loss: bar.update(task, completed=done, loss=loss)

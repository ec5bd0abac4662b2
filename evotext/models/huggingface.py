"""`model=hf`: any Hugging Face causal language model, by hub name or local folder."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from evotext.distributed.sharding import RolloutWeights
from evotext.models.cached_layers import cached_layers, unknown_layers
from evotext.models.chat import ChatFormat
from evotext.models.dtype import DType, resolve
from evotext.models.language_model import LanguageModel
from evotext.models.source import Outline, Parallel, loading_device
from evotext.models.tensor_parallel import among_groups, check_plan
from evotext.models.trial_run import check_runs
from evotext.validation import PositiveInt, checked

# Names in configurations for the number of positions that a model has.
POSITIONS = ("max_position_embeddings", "max_seq_len", "seq_length", "max_target_positions")


class HuggingFaceModel:
    """path: hub name (`organisation/name`) or folder as `save_pretrained` writes it.

    dtype: of the weights while running (`evotext.models.dtype`); the algorithms keep float32 masters where they need them.
    trust_remote_code: run Python code that comes with the model. Leave it off unless you have read that code.
    parallel: None: each process holds the whole model. `tensor`: groups of processes hold it together. `fsdp`: all divide it
    after loading (`LanguageModel.sharded`).
    parallel_size: processes of such a group; None: all. rollout_weights: what rollouts gather with `fsdp`.
    """

    @checked
    def __init__(
        self,
        *,
        path: str,
        dtype: DType,
        trust_remote_code: bool,
        parallel: Parallel,
        parallel_size: PositiveInt | None,
        rollout_weights: RolloutWeights = "layers",
    ) -> None:
        self.path, self.trust_remote_code = path, trust_remote_code
        self._dtype: DType = dtype
        if parallel != "tensor" and parallel_size is not None:
            raise ValueError(f"parallel_size: expected null without parallel=tensor, got {parallel_size}")
        self._parallel, self._parallel_size = parallel, parallel_size

    def outline(self) -> Outline:
        """Return tokenizer and context length. Raise ValueError if there is no such model or the engine cannot run it."""
        config, tokenizer = self._open()
        with _named():
            longest = context_length(config)
        if self._parallel == "tensor":
            check_plan(config)
        chat = ChatFormat(tokenizer, end_ids(config, tokenizer, _generation_ends(self.path)))
        return Outline(chat=chat, context_length=longest, config=config)

    def load(self, device: torch.device) -> LanguageModel:
        """Load the weights onto the device. Raise ValueError if a file is missing or damaged."""
        config, tokenizer = self._open()
        dtype = resolve(self._dtype, device, config.get_text_config().hidden_size)
        try:
            network = AutoModelForCausalLM.from_pretrained(
                self.path, config=config, dtype=dtype, trust_remote_code=self.trust_remote_code
            )
        except (OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"path: expected whole weights in {self.path!r}, got: {reason}") from error
        parts = among_groups(network, self._parallel, self._parallel_size)
        network = network.to(loading_device(self._parallel, device)).eval()
        with _named():
            check_runs(network)
        outline = self.outline()
        return LanguageModel(
            name=self.path,
            network=network,
            tokenizer=tokenizer,
            chat=outline.chat,
            context_length=outline.context_length,
            parts=parts,
        )

    def _open(self) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
        looks_local = self.path.startswith((".", "/", "~")) or self.path.count("/") != 1
        if looks_local and not Path(self.path).expanduser().is_dir() and "/" in self.path:
            raise ValueError(
                f"path: expected a folder or a hub name (organisation/name), got {self.path!r}: no such folder"
            )
        options = {"trust_remote_code": self.trust_remote_code}
        try:
            return AutoConfig.from_pretrained(self.path, **options), AutoTokenizer.from_pretrained(self.path, **options)
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"path: expected a folder with a model or a hub name, got {self.path!r}: {reason}"
            ) from error


def context_length(config: PreTrainedConfig) -> int:
    """Return the longest conversation that the engine runs with this model, in tokens.

    A sliding attention window limits it too: below that length windowed and full attention are the same. Configurations
    without a limit set none: states of fixed size, or biases that grow with the distance of tokens.
    Raise ValueError for models that keep something other than keys, values and states.
    """
    text = config.get_text_config()
    other = unknown_layers(config)
    if other:
        raise ValueError(
            f"expected a model whose layers keep keys and values or recurrent states, got {text.model_type} with "
            f"{', '.join(other)}"
        )
    limits = [getattr(text, name, None) for name in POSITIONS]
    limits += [layer.get_max_length() for layer in cached_layers(config)]
    return min((limit for limit in limits if limit and limit > 0), default=sys.maxsize)


@contextmanager
def _named() -> Iterator[None]:
    """Say which key an error about a family belongs to, and where those that run are named."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"path: {error}; docs/models.md names the families that run") from None


def end_ids(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, generation: int | list[int] | None
) -> list[int]:
    """Return the end tokens: the tokenizer's, the configuration's and those of generation.

    Instruction-tuned models often have two.
    """
    ids = {tokenizer.eos_token_id}
    for configured in (config.get_text_config().eos_token_id, generation):
        ids |= set(configured) if isinstance(configured, list) else {configured}
    return sorted(i for i in ids if i is not None)


def _generation_ends(path: str) -> int | list[int] | None:
    try:
        return GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:  # models need not have that file
        return None

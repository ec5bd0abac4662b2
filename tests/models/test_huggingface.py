"""Opening models of transformers: what ends an answer, and folders that are not whole."""

import os
import sys
from pathlib import Path

import pytest
import torch
from families.tiny import tiny_config
from transformers import AutoModelForCausalLM, BloomConfig, MistralConfig, MptConfig, PreTrainedConfig

from evotext.models.huggingface import HuggingFaceModel, context_length
from tests.small_models import CONFIGS, RECURRENT, small_model


def source(folder: Path) -> HuggingFaceModel:
    return HuggingFaceModel(
        path=str(folder), dtype="float32", trust_remote_code=False, parallel=None, parallel_size=None
    )


@pytest.mark.parametrize("length", [None, 0, 5000])
def test_missing_and_damaged_weights_are_named(tmp_path: Path, length: int | None) -> None:
    small_model("llama", torch.float32).save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.unlink() if length is None else os.truncate(weights, length)
    with pytest.raises(ValueError, match="path: expected whole weights in '.*', got: ") as said:
        source(tmp_path).load(torch.device("cpu"))
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_or_damaged_description_is_named(tmp_path: Path, name: str) -> None:
    small_model("llama", torch.float32).save(tmp_path)
    (tmp_path / name).write_text("{")
    with pytest.raises(ValueError, match="path: expected a folder with a model or a hub name"):
        source(tmp_path).outline()


def test_tokens_that_end_generation_end_answers(tmp_path: Path) -> None:
    """Instruction-tuned models often name the end of a turn in generation_config.json alone."""
    model = small_model("llama", torch.float32)
    model.network.generation_config.eos_token_id = [3, 7]
    model.save(tmp_path)
    assert set(source(tmp_path).outline().chat.end_ids) == {3, 7, model.tokenizer.eos_token_id}
    (tmp_path / "generation_config.json").unlink()
    assert set(source(tmp_path).outline().chat.end_ids) == {3, model.tokenizer.eos_token_id}


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        (CONFIGS["llama"], 128),
        (MistralConfig(sliding_window=64), 64),
        (RECURRENT["jamba"], 128),
        (RECURRENT["mamba"], sys.maxsize),
        (MptConfig(max_seq_len=96), 96),
        (BloomConfig(), sys.maxsize),
    ],
    ids=["positions", "window", "attention beside states", "states alone", "another name", "distances alone"],
)
def test_what_a_model_keeps_limits_a_conversation(config: PreTrainedConfig, longest: int) -> None:
    assert context_length(config) == longest


def test_models_that_keep_something_else_are_refused(tmp_path: Path) -> None:
    """Their configuration gives them away, or the arguments of their forward pass; one line names the key and where to look."""
    where = "docs/models.md names the families that run$"
    small_model("llama", torch.float32).save(tmp_path)
    tiny_config("deepseek_v32").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"^path: expected a model whose layers keep .* got deepseek_v32 .*; {where}"):
        source(tmp_path).outline()
    for family, reason in {
        "rwkv": "one of transformers' caches, got Rwkv",
        "bart": "may have unequal length, got Bart",
    }.items():
        AutoModelForCausalLM.from_config(tiny_config(family)).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=f"^path: expected a network .*{reason}.*; {where}") as said:
            source(tmp_path).load(torch.device("cpu"))
        assert "\n" not in str(said.value)

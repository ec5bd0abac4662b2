"""Opening models of transformers: what ends an answer, and folders that are not whole."""

import os
from pathlib import Path

import pytest
import torch

from evotext.models.huggingface import HuggingFaceModel
from tests.small_models import small_model


def source(folder: Path) -> HuggingFaceModel:
    return HuggingFaceModel(path=str(folder), dtype="float32", trust_remote_code=False, parallel=None)


@pytest.mark.parametrize("length", [None, 0, 5000])
def test_missing_and_damaged_weights_are_named(tmp_path: Path, length: int | None) -> None:
    small_model("llama", torch.float32).save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.unlink() if length is None else os.truncate(weights, length)
    with pytest.raises(ValueError, match="model.path: expected whole weights in '.*', got: ") as said:
        source(tmp_path).load(torch.device("cpu"))
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_or_damaged_description_is_named(tmp_path: Path, name: str) -> None:
    small_model("llama", torch.float32).save(tmp_path)
    (tmp_path / name).write_text("{")
    with pytest.raises(ValueError, match="model.path: expected a folder with a model or a hub name"):
        source(tmp_path).outline()


@pytest.mark.parametrize("parallel", ["fsdp", "tensor"])
def test_a_model_over_several_devices_is_refused(tmp_path: Path, parallel: str) -> None:
    with pytest.raises(
        ValueError, match=f"model.parallel: expected null, got '{parallel}': perturbed layers do not run"
    ):
        HuggingFaceModel(path=str(tmp_path), dtype="float32", trust_remote_code=False, parallel=parallel)


def test_tokens_that_end_generation_end_answers(tmp_path: Path) -> None:
    """Instruction-tuned models often name the end of a turn in generation_config.json alone."""
    model = small_model("llama", torch.float32)
    model.network.generation_config.eos_token_id = [3, 7]
    model.save(tmp_path)
    assert set(source(tmp_path).outline().chat.end_ids) == {3, 7, model.tokenizer.eos_token_id}
    (tmp_path / "generation_config.json").unlink()
    assert set(source(tmp_path).outline().chat.end_ids) == {3, model.tokenizer.eos_token_id}

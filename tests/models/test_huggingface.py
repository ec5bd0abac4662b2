"""Opening models of transformers: what ends an answer."""

from pathlib import Path

from evotext.models.huggingface import HuggingFaceModel
from tests.small_models import small_model


def test_tokens_that_end_generation_end_answers(tmp_path: Path) -> None:
    """Instruction-tuned models often name the end of a turn in generation_config.json alone."""
    model = small_model("llama")
    model.network.generation_config.eos_token_id = [3, 7]
    model.network.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)

    def ends() -> set[int]:
        source = HuggingFaceModel(path=str(tmp_path), dtype="float32", trust_remote_code=False)
        return set(source.outline().chat.end_ids)

    assert ends() == {3, 7, model.tokenizer.eos_token_id}
    (tmp_path / "generation_config.json").unlink()
    assert ends() == {3, model.tokenizer.eos_token_id}

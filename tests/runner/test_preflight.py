"""A task that cannot fit the model is refused before anything is trained."""

import pytest
import torch

from evotext.models.character_tokenizer import character_tokenizer
from evotext.models.chat import ChatFormat
from evotext.models.source import Outline
from evotext.rollouts.task import TextTask
from evotext.runner.preflight import check_prompts, choose_device


def outline(context_length: int) -> Outline:
    tokenizer = character_tokenizer()
    return Outline(chat=ChatFormat(tokenizer, [tokenizer.eos_token_id]), context_length=context_length)


def _recall(delay: int) -> TextTask:
    return TextTask(
        name="recall",
        id="envs:evotext/Recall-v0",
        max_new_tokens=10,
        max_turns=1002,
        success_return=None,
        strict=False,
        step_seconds=60.0,
        workers=0,
        delay=delay,
    )


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(
        ValueError, match="got 'cuda', but torch sees no GPU here; take device=cpu or install a CUDA build"
    ):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="one of the 1 GPUs that torch sees, got 'cuda:1'"):
        choose_device("cuda:1")


def test_episodes_that_fit_are_let_through() -> None:
    check_prompts(outline(256), _recall(delay=16))


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected prompts of at most 2 tokens .* got one of 7"):
        check_prompts(outline(12), _recall(delay=0))


def test_an_episode_that_outgrows_the_context_is_refused() -> None:
    """The first prompt is short; the turns that follow are too many."""
    with pytest.raises(ValueError, match=r"expected episodes of at most 256 tokens .* got a worked one of 2\d\d\d"):
        check_prompts(outline(256), _recall(delay=200))

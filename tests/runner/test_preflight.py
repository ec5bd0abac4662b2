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
    _sees(monkeypatch, None, 0)
    wanted = "got 'cuda', but torch sees no GPU here; take device=cpu or install a build of torch for cuda"
    with pytest.raises(ValueError, match=wanted):
        choose_device("cuda")
    _sees(monkeypatch, "cuda", 1)
    with pytest.raises(ValueError, match="one of the 1 GPUs that torch sees, got 'cuda:1'"):
        choose_device("cuda:1")
    with pytest.raises(ValueError, match="got 'mps', but torch sees cuda here; take device=cuda"):
        choose_device("mps")
    for name in ("gpu", "meta", "cuda:x"):
        with pytest.raises(ValueError, match="expected auto, cpu, cuda, xpu, mps or one with its number"):
            choose_device(name)


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_each_process_takes_a_device_of_its_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _sees(monkeypatch, kind, 2)
    assert choose_device(kind) == torch.device(kind) and choose_device(f"{kind}:1") == torch.device(kind, 1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "local")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device(kind) == torch.device(kind, 1)
    _sees(monkeypatch, kind, 1)
    with pytest.raises(ValueError, match="at most 1 processes on this machine, one a GPU that torch sees, got 2"):
        choose_device(kind)
    assert (
        choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    )  # devices that nothing ran on here have to be asked for by name


def _sees(monkeypatch: pytest.MonkeyPatch, kind: str | None, count: int) -> None:
    device = None if kind is None else torch.device(kind)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: device)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)


def test_episodes_that_fit_are_let_through() -> None:
    check_prompts(outline(256), _recall(delay=16))


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected prompts of at most 2 tokens .* got one of 7"):
        check_prompts(outline(12), _recall(delay=0))


def test_an_episode_that_outgrows_the_context_is_refused() -> None:
    """The first prompt is short; the turns that follow are too many."""
    with pytest.raises(ValueError, match=r"expected episodes of at most 256 tokens .* got a worked one of 2\d\d\d"):
        check_prompts(outline(256), _recall(delay=200))

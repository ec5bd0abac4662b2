"""The built-in model: its warm-up teaches what the demonstrations show, and it is an ordinary Hugging Face model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from evotext.models.chat import Conversation
from evotext.models.tiny import SHAPES, Size, TinyModel
from evotext.rollouts.session import Session


def echoes(count: int, seed: int) -> Iterator[Conversation]:
    """Two turns: say the letter again, then say the other one."""
    generator = torch.Generator().manual_seed(seed)
    for bit in torch.randint(2, (count,), generator=generator).tolist():
        yield [("ab"[bit], "ab"[bit]), ("other?", "ba"[bit])]


def source(folder: Path, **changes: Any) -> TinyModel:
    settings: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "layers": 2,
        "heads": 2,
        "context_length": 64,
        "steps": 150,
        "batch_size": 16,
        "learning_rate": 1e-2,
        "warm_up_seed": 0,
        "demonstrations": echoes,
        "cache_folder": str(folder),
    }
    return TinyModel(**settings | changes)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    source(folder).load(torch.device("cpu"))
    return folder


@pytest.mark.learning
def test_the_warm_up_teaches_both_turns(cache: Path, seed: int) -> None:
    model = source(cache, warm_up_seed=seed).load(torch.device("cpu"))
    session = Session(model, members=[0, 0], noise=None)
    settings: dict[str, Any] = {
        "max_new_tokens": 3,
        "temperature": 0.0,
        "uniform_NT": None,
        "logprobs": False,
        "last_turn": False,
    }
    first = session.complete([0, 1], model.chat.open([("", "a"), ("", "b")]), **settings)
    assert model.chat.text([c.ids for c in first]) == ["a", "b"]
    replies = model.chat.reply(["other?", "other?"], [c.ids[-1] for c in first])
    blocks = [[c.ids[-1], *reply] for c, reply in zip(first, replies, strict=True)]
    second = session.complete([0, 1], blocks, **settings)
    assert model.chat.text([c.ids for c in second]) == ["b", "a"]
    assert all(c.ended for c in first + second)


def test_it_is_an_ordinary_model_on_disk(cache: Path, tmp_path: Path) -> None:
    model = source(cache).load(torch.device("cpu"))
    model.save(tmp_path)
    network, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(network, LlamaForCausalLM)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    written = network.generate(**ids, max_new_tokens=4, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(written, skip_special_tokens=True) == "a"


def test_the_same_recipe_is_not_trained_again_and_gives_the_same_weights(cache: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in cache.iterdir())
    again = source(cache).load(torch.device("cpu"))
    assert sorted(path.name for path in cache.iterdir()) == before
    anew = source(tmp_path).load(torch.device("cpu"))
    for a, b in zip(again.network.parameters(), anew.network.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 48},
        {"steps": 2},
        {"warm_up_seed": 1},
        {"demonstrations": lambda count, seed: ([("a", "b")] for _ in range(count))},
    ],
)
def test_another_recipe_is_another_model(tmp_path: Path, change: dict[str, Any]) -> None:
    assert source(tmp_path)._key() != source(tmp_path, **change)._key()


@pytest.mark.parametrize(("size", "millions"), [("1M", 1.06), ("8M", 8.4), ("25M", 25.2)])
def test_a_size_says_how_many_weights_there_are(tmp_path: Path, size: Size, millions: float) -> None:
    of_size = dict.fromkeys(("hidden_size", "intermediate_size", "layers", "heads"))
    named = source(tmp_path, size=size, **of_size)
    with torch.device("meta"):
        network = LlamaForCausalLM(named._config())
    assert sum(weight.numel() for weight in network.parameters()) == pytest.approx(1e6 * millions, rel=0.02)
    shape = SHAPES[size]
    by_hand = source(
        tmp_path,
        hidden_size=shape["hidden_size"],
        intermediate_size=shape["intermediate_size"],
        layers=shape["num_hidden_layers"],
        heads=shape["num_attention_heads"],
    )
    assert named._key() == by_hand._key()


def test_the_warm_up_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    source(tmp_path, steps=2).load(torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)


def test_heads_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"heads: expected a divisor"):
        source(tmp_path, heads=3)

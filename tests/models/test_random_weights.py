"""Random models have the size that they are named after, a vocabulary that can be read, and repeatable weights."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from evotext.models.random_weights import RandomModel, shapes


@pytest.mark.parametrize("name", shapes())
def test_the_size_is_that_of_the_name(name: str) -> None:
    with torch.device("meta"):
        parameters = sum(p.numel() for p in AutoModelForCausalLM.from_config(shapes()[name]).parameters())
    assert parameters == pytest.approx(float(name[:-1]) * {"M": 1e6, "B": 1e9}[name[-1]], rel=0.15)


def test_every_token_can_be_read_and_the_weights_are_the_same_each_time() -> None:
    one, other = (RandomModel(size="25M", dtype="float32").load(torch.device("cpu")) for _ in range(2))
    assert len(one.tokenizer) == one.network.config.vocab_size
    assert len({*one.tokenizer.convert_ids_to_tokens(range(len(one.tokenizer)))}) == len(one.tokenizer)
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="size: expected one of 1M, 25M"):
        RandomModel(size="2M", dtype="auto")

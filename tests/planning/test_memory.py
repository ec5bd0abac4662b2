"""Forecasts against sums by hand, and against what a generation is seen to hold."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from evotext.commands.planning.advice import changes
from evotext.commands.planning.memory import forecast, standing
from evotext.commands.planning.operations import operations
from evotext.commands.planning.rollouts import cache_bytes, forward_bytes, noise_bytes, rollout_bytes
from evotext.commands.planning.shape import Shape, shape_of
from evotext.commands.planning.sharded import gathered_for_rollouts, sharded_update
from evotext.commands.planning.update import saved_bytes, trained_bytes
from evotext.commands.planning.work import Noise, Rollouts, Work
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM, Phi3Config

CONFIG = LlamaConfig(
    hidden_size=8,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    vocab_size=10,
    tie_word_embeddings=True,
)
SHAPE = shape_of(CONFIG)
ROLLOUTS = Rollouts(rows=12, at_once=6, prompt=3, answer=2, leaving=False)
NOISE = Noise(kind="low_rank", members=4, antithetic=True, rank=1, vectors=False)


def work(**changed: Any) -> Work:
    base = Work(family="es", rollouts=ROLLOUTS, element=4, moments=2, noise=NOISE)
    return replace(base, **changed)


def test_a_shape_is_read_without_weights() -> None:
    # Queries and output 8 x 8, keys and values 4 x 8; gate and up 24 x 8, down 8 x 24; two norms a layer and one at the end.
    block = 2 * 64 + 2 * 32 + 3 * 192
    assert SHAPE.parameters == LlamaForCausalLM(CONFIG).num_parameters() == 80 + 2 * block + 5 * 8
    assert (SHAPE.largest, SHAPE.trunk, SHAPE.queries, SHAPE.keys) == (192, 2 * block, 8, 4)


def test_what_stays_is_counted_by_hand() -> None:
    n = SHAPE.parameters
    assert standing(SHAPE, work())["optimizer moments"] == 8 * n
    narrow = standing(SHAPE, work(element=2, moments=0))
    assert (narrow["weights"], narrow["float32 masters"], narrow["optimizer moments"]) == (2 * n, 4 * n, 0)
    assert standing(SHAPE, work(element=2, masters=False))["float32 masters"] == 0
    assert standing(SHAPE, work(references=1))["copies of the start"] == 4 * n
    assert standing(SHAPE, work(references=1, adapter_rank=2))["copies of the start"] == 0
    # Rank 2 beside each matrix of a layer: inputs and outputs of 8 + 8 twice, 4 + 8 twice, 24 + 8 three times.
    assert standing(SHAPE, work(adapter_rank=2))["optimizer moments"] == 8 * 2 * 2 * (2 * 16 + 2 * 12 + 3 * 32)


def test_a_shared_update_divides_the_state_by_whole_parameters() -> None:
    n = SHAPE.parameters
    for devices in (2, 3):
        own = standing(SHAPE, work(element=2, shares_update=True, devices=devices))
        assert own["weights"] == 2 * n
        assert n / devices <= own["float32 masters"] / 4 < n / devices + SHAPE.largest
        assert own["optimizer moments"] == 2 * own["float32 masters"]
    # Beyond as many devices as there are parameters, the largest one bounds it.
    assert standing(SHAPE, work(shares_update=True, devices=1000))["optimizer moments"] == 8 * SHAPE.largest
    assert standing(SHAPE, work(shares_update=True))["optimizer moments"] == 8 * n


def test_a_batch_of_rollouts_is_counted_by_hand() -> None:
    assert cache_bytes(SHAPE, ROLLOUTS, 6, 4) == 2 * 2 * 4 * 6 * 5 * 4
    assert forward_bytes(SHAPE, 4) == 4 * (4 * 8 + 3 * 24)
    outputs = 10 + 2 * (8 + 4 + 4 + 8 + 24 + 24 + 8)
    inputs = 8 + 2 * (6 * 8 + 24)
    # Two pairs; of the batch's two members, a pair, each its own A, and the pair's B.
    assert noise_bytes(SHAPE, work(), 6) == 4 * (2 * (outputs + inputs) + 2 * outputs + inputs)
    full = work(noise=replace(NOISE, kind="full_rank"))
    assert noise_bytes(SHAPE, full, 6) == 4 * (SHAPE.parameters - 5 * 8)


def test_a_token_leaves_what_autograd_keeps_of_it() -> None:
    """Against torch itself: what one more token adds to the tensors saved for the backward pass of two layers."""

    def saved(tokens: int) -> int:
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        network = LlamaForCausalLM(CONFIG).eval()
        weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = network.model(input_ids=torch.zeros(1, tokens, dtype=torch.int64), use_cache=False)
        assert output.last_hidden_state.requires_grad
        return sum(size for place, size in kept.items() if place not in weights)

    forecast_of_64 = 64 * SHAPE.layers * saved_bytes(SHAPE, 4)
    assert saved(128) - saved(64) == pytest.approx(forecast_of_64, rel=0.1)


def test_shared_prompts_are_trained_on_once() -> None:
    grouped = replace(ROLLOUTS, rows=4, distinct=2)
    rl = work(family="gradient", noise=None, rollouts=grouped, step_rows=4, micro_rows=4)
    activations, logits = trained_bytes(SHAPE, rl, 4)
    layer = (2 * 3 + 4 * 2) * saved_bytes(SHAPE, 4) + 2 * 4 * 4 * 4 * 3
    assert activations == 2 * layer + 4 * 2 * 8 * 2 * 4
    assert logits == 4 * 2 * 10 * 12
    assert trained_bytes(SHAPE, replace(rl, checkpointing=True), 4)[0] < activations


def test_operations_are_counted_by_hand() -> None:
    counted = operations(SHAPE, work(noise=replace(NOISE, kind="full_rank")))
    assert counted.rollouts == 2 * (SHAPE.trunk * 12 * 5 + 80 * 12 * 2) + 2 * SHAPE.trunk * 12 * 5
    assert counted.update == 2 * 2 * SHAPE.parameters


def test_the_parts_are_those_of_the_greatest_phase() -> None:
    found = forecast(SHAPE, work())
    assert found.total == max(found.phases.values()) == found.phases[found.phase]


def test_each_advice_is_smaller_or_says_so() -> None:
    big = Shape(**{**vars(SHAPE), "vocabulary": 50_000, "layers": 48})
    rl = work(family="gradient", noise=None, step_rows=12, micro_rows=12, references=1)
    before = forecast(big, rl).total
    found = {change.words: change.forecast.total for change in changes(big, rl)}
    assert found["algorithm.micro_rows=1"] < before and found["algorithm.gradient_checkpointing=true"] < before
    assert found["all that cost time alone"] <= min(found["algorithm.micro_rows=1"], before)
    assert any(words.startswith("algorithm=scored_es") for words in found)


def test_divided_models_are_counted_by_hand() -> None:
    whole = work(family="gradient", noise=None, element=2, references=1, step_rows=12, micro_rows=3)
    shards = standing(SHAPE, replace(whole, devices=4, sharded="layers"))
    n = SHAPE.parameters
    # Float32 weights, which are their own masters, and two moments; the reference is stored as the network is.
    assert shards == {
        "weights": n * 4 // 4,
        "copies of the start": n * 2 // 4,
        "optimizer moments": 2 * n * 4 // 4,
    }
    rest = 80 + 8
    layer = (n - rest) // 2
    divided = replace(whole, devices=4, sharded="layers")
    assert gathered_for_rollouts(SHAPE, divided)["gathered weights"] == 2 * (rest + 2 * layer)
    gathered = gathered_for_rollouts(SHAPE, replace(divided, sharded="whole"))["gathered weights"]
    assert gathered == 2 * (n + layer), "all weights, and a buffer"
    update = sharded_update(SHAPE, divided)
    activations, logits = trained_bytes(SHAPE, divided, 3)
    assert (update["activations"], update["logits"]) == (activations, logits)
    assert update["gathered weights"] == 2 * (rest + 2 * layer) and update["gradients"] == 0
    assert sharded_update(SHAPE, replace(divided, micro_rows=1))["gradients"] == n
    large = replace(divided, adapter_rank=2, rollouts=replace(ROLLOUTS, at_once=1))
    assert standing(SHAPE, large)["weights"] < shards["weights"], "frozen weights stay in their own type"


@pytest.mark.parametrize("size", [2, 4])
def test_a_part_has_the_shape_that_a_process_holds(size: int) -> None:
    """Matrices, embeddings and heads are divided; norms are not. One head of keys cannot be: attention is computed whole."""
    part = shape_of(CONFIG, size)
    assert part.vectors == SHAPE.vectors and part.vocabulary == SHAPE.vocabulary and part.hidden == SHAPE.hidden
    assert part.trunk == SHAPE.trunk // size and part.embeddings == ((-(-10 // size), 8),)
    assert (part.inner, part.queries, part.keys) == (24 // size, SHAPE.queries, SHAPE.keys)
    even = LlamaConfig(**CONFIG.to_dict() | {"num_attention_heads": 4, "num_key_value_heads": 4})
    assert (shape_of(even, size).queries, shape_of(even, size).heads) == (4 * 4 // size, 4 // size)
    joined = Phi3Config(**CONFIG.to_dict() | {"model_type": "phi3"})
    assert shape_of(joined, size).inner == 24, "its plan joins gate and up"
    with pytest.raises(ValueError, match="^parallel: expected null for gpt2"):
        shape_of(GPT2Config(n_layer=1), size)


def test_a_group_has_the_rows_of_one_process() -> None:
    part = shape_of(CONFIG, 2)
    alone, together = work(devices=2), work(devices=4, tensor=2)
    assert noise_bytes(part, together, 6) < noise_bytes(SHAPE, alone, 6)
    assert rollout_bytes(part, together)["decoding cache"] == rollout_bytes(SHAPE, alone)["decoding cache"]
    # 6 rows of a group, whose logits are in memory once as parts and once joined, beside the own part and its copy.
    assert rollout_bytes(part, together)["logits"] == 6 * 4 * (2 * 10 + 2 * 5)
    assert standing(part, together)["optimizer moments"] == 8 * part.parameters

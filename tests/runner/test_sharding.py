"""A model divided over processes is tuned as a whole one is: the same weights, saved and resumed, and a share of the memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evotext.distributed import collectives
from evotext.distributed.sharding import is_divided, own_part
from tests.runner.small_runs import (
    ended,
    lines_of,
    run_to_the_end,
    small_run,
    small_starting_model,
    together,
    weights_of,
)

# Parts of one row, so that processes have unequal numbers of them.
STEPS = {"epochs": 1, "minibatches": 4, "micro_rows": 1}
OPTIONS: dict[str, Any] = {
    "generations": 1,
    "rows": 4,
}  # three batches for two processes: unequal numbers of passes, too


def whole_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def run_in_a_group(folder: Path, *arguments: Any) -> None:
    """Only the first process has the run's folder, as with the commands."""
    first = collectives.rank() == 0
    run_to_the_end(folder if first else folder.with_name(f"{folder.name}-{collectives.rank()}"), *arguments)


@pytest.mark.parametrize(
    ("algorithm", "rollout_weights", "family", "settings"),
    [
        ("grpo", "layers", "llama", {}),
        ("ppo", "whole", "gemma3", {"value_trunk": "own"}),  # with tied embeddings
        ("sft", "layers", "mixtral", {"gradient_checkpointing": True}),  # some experts are used in one process alone
    ],
)
def test_two_processes_end_with_the_weights_of_one(
    tmp_path: Path, algorithm: str, rollout_weights: str, family: str, settings: dict[str, Any]
) -> None:
    options = OPTIONS | {"settings": STEPS | settings, "family": family}
    run_to_the_end(tmp_path / "alone", algorithm, options=options)
    divided = options | {"rollout_weights": rollout_weights}
    assert ended(*together(2, run_in_a_group, tmp_path / "two", algorithm, False, divided)) == [0, 0]
    expected, found = whole_weights(tmp_path / "alone"), whole_weights(tmp_path / "two")
    small_starting_model(family=family).save(tmp_path / "began")
    began = load_file(tmp_path / "began" / "model.safetensors")
    assert list(found) == list(expected)
    for name, weight in expected.items():
        assert float((weight - began[name]).detach().abs().max()) > 1e-4, name
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-5)
    metrics, others = lines_of(tmp_path / "alone")[1], lines_of(tmp_path / "two")[1]
    for key in metrics.keys() - {"kind"}:
        assert others[key] == pytest.approx(metrics[key], rel=1e-3, abs=1e-5), key


@pytest.mark.slow
def test_narrow_weights_have_float32_masters(tmp_path: Path) -> None:
    options = OPTIONS | {"settings": STEPS, "dtype": torch.bfloat16}
    run_to_the_end(tmp_path / "alone", "grpo", options=options)
    divided = options | {"rollout_weights": "whole"}
    assert ended(*together(2, run_in_a_group, tmp_path / "two", "grpo", False, divided)) == [0, 0]
    expected, found = whole_weights(tmp_path / "alone"), whole_weights(tmp_path / "two")
    assert {weight.dtype for weight in found.values()} == {torch.bfloat16}
    began = dict(small_starting_model(torch.bfloat16).network.named_parameters())
    moved, apart = (
        sum(float((weight.float() - other[name].detach().float()).square().sum()) for name, weight in found.items())
        for other in (began, expected)
    )
    assert apart < 1e-2 * moved


@pytest.mark.slow
def test_it_is_resumed_by_as_many_processes_and_by_others(tmp_path: Path) -> None:
    options = OPTIONS | {"generations": 2, "settings": STEPS, "rollout_weights": "layers"}
    assert ended(*together(2, run_in_a_group, tmp_path / "through", "grpo", False, options)) == [0, 0]
    stopped = options | {"generations": 1}
    assert ended(*together(2, run_in_a_group, tmp_path / "stopped", "grpo", False, stopped)) == [0, 0]
    assert ended(*together(2, run_in_a_group, tmp_path / "stopped", "grpo", True, options)) == [0, 0]
    weights = weights_of(tmp_path / "through")
    assert weights_of(tmp_path / "stopped") == weights
    (tmp_path / "stopped" / "model" / "model.safetensors").unlink()
    assert ended(*together(3, run_in_a_group, tmp_path / "stopped", "grpo", True, options)) == [0, 0, 0]
    assert weights_of(tmp_path / "stopped") == weights


def holds_half(folder: Path) -> None:
    run = small_run(folder, "grpo", rollout_weights="whole", settings=STEPS, rows=4, generations=1)
    run.train()
    model = run.model
    state = run._learner.training.stepper.optimizer.state
    kept = [*model.network.parameters(), *(v for values in state.values() for v in values.values() if v.numel() > 1)]
    assert all(map(is_divided, kept)) and len(kept) == 3 * len(state)
    held, whole = (sum(tensor.numel() for tensor in tensors) for tensors in (map(own_part, kept), kept))
    assert 0.49 < held / whole < 0.51
    assert all(p.grad is None for p in model.network.parameters())


def test_each_process_keeps_its_share_of_weights_and_moments(tmp_path: Path) -> None:
    assert ended(*together(2, holds_half, tmp_path)) == [0, 0]

"""Several processes are one run: the same plan, the same noise and, with the same batches, the same weights to the last bit."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from evotext.distributed import collectives, torchrun
from evotext.models.language_model import LanguageModel
from evotext.protocols import Learner
from optimizers.shared_context import EPISODES
from tests.runner.small_runs import (
    ended,
    lines_of,
    outcome_of,
    run_to_the_end,
    small_run,
    small_starting_model,
    start,
    together,
    weights_of,
)

# One of each kind: what differs between processes differs by the noise, by the adapter, by the library, by the loss.
POPULATIONS = ["eggroll", "openai_es", "lora_es", "cma_es", "scored_es"]
GRADIENTS = ["grpo", "ppo", "rloo", "sft"]
OPTIONS = {"generations": 3, "rows": 4}  # three batches a generation, one an evaluation


def whole_weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp("alone") / name for name in [*POPULATIONS, *GRADIENTS]}
    for name, folder in folders.items():
        run_to_the_end(folder, name, options=OPTIONS)
    return folders


@pytest.mark.parametrize(
    ("algorithm", "size"),
    [*((name, 2) for name in POPULATIONS), ("eggroll", 4)],  # 4 is more than there are batches
)
def test_a_population_over_processes_ends_with_the_same_bits(
    tmp_path: Path, alone: dict[str, Path], algorithm: str, size: int
) -> None:
    assert ended(*together(size, run_to_the_end, tmp_path, algorithm, False, OPTIONS)) == [0] * size
    assert outcome_of(tmp_path) == outcome_of(alone[algorithm])
    assert json.loads((tmp_path / "summary.json").read_text())["processes"] == size


def test_a_mixture_over_processes_ends_with_the_same_bits(tmp_path: Path) -> None:
    """A batch holds one task's rows, so that those of a process do not come in the plan's order."""
    options = OPTIONS | {"mixture": True}
    run_to_the_end(tmp_path / "alone", "eggroll", options=options)
    assert ended(*together(2, run_to_the_end, tmp_path / "two", "eggroll", False, options)) == [0, 0]
    two, alone = outcome_of(tmp_path / "two"), outcome_of(tmp_path / "alone")
    del two["episodes"], alone["episodes"]  # a sample, of the first process's rows
    assert two == alone


@pytest.mark.parametrize("algorithm", GRADIENTS)
def test_gradients_over_processes_add_up(tmp_path: Path, alone: dict[str, Path], algorithm: str) -> None:
    """One process adds in another order, so that the last bits may differ, and with them a token on the edge."""
    one = {"generations": 1, "rows": 4}
    run_to_the_end(tmp_path / "alone", algorithm, options=one)
    assert ended(*together(2, run_to_the_end, tmp_path / "two", algorithm, False, one)) == [0, 0]
    expected, found = whole_weights(tmp_path / "alone"), whole_weights(tmp_path / "two")
    began = dict(small_starting_model().network.named_parameters())
    for name, weight in expected.items():
        moved = float((weight - began[name]).detach().abs().max())
        assert moved > 1e-5, name
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-3 * moved)
    metrics, others = lines_of(tmp_path / "alone")[1], lines_of(tmp_path / "two")[1]
    assert set(metrics) <= set(others)
    for key in metrics.keys() - {"kind"}:
        assert others[key] == pytest.approx(metrics[key], rel=1e-3, abs=1e-5), key


def bytes_and_waiting(folder: Path, algorithm: str) -> dict[str, float]:
    line = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()][1]
    assert 0.0 <= line["processes/waiting"] < 1.0
    return line["processes/bytes"]


def test_a_population_exchanges_scalars_and_gradients_more(tmp_path: Path) -> None:
    for algorithm in ("eggroll", "grpo"):
        options = {"generations": 1, "rows": 4}
        assert ended(*together(2, run_to_the_end, tmp_path / algorithm, algorithm, False, options)) == [0, 0]
    parameters = sum(weight.numel() for weight in whole_weights(tmp_path / "eggroll").values())
    scalars = bytes_and_waiting(tmp_path / "eggroll", "eggroll")
    assert scalars < 1500, "5 numbers a row, 8 bytes a parameter tensor, and a few"
    assert bytes_and_waiting(tmp_path / "grpo", "grpo") > 4 * parameters


class Differs:
    """A learner that gives one process other weights than the others."""

    def __init__(self, learner: Learner, model: LanguageModel) -> None:
        self._learner, self._weight = learner, list(model.network.parameters())[3]
        for name in ("ask", "state_dict", "load_state_dict"):
            setattr(self, name, getattr(learner, name))

    def tell(self, batch: Any) -> Any:
        report = self._learner.tell(batch)
        if batch.plan.generation == 1 and collectives.rank() == 1:
            with torch.no_grad():
                self._weight.view(-1)[5] += 1e-6
        return report


def run_that_differs(folder: Path) -> None:
    try:
        small_run(folder, wrap=Differs).train()
    except RuntimeError as error:
        (folder / f"said-{collectives.rank()}").write_text(str(error))
        os._exit(3)


def test_other_weights_in_a_process_stop_the_run_and_are_named(tmp_path: Path) -> None:
    assert ended(*together(2, run_that_differs, tmp_path)) == [3, 3]
    for rank in (0, 1):
        said = (tmp_path / f"said-{rank}").read_text()
        assert said.startswith("generation 2: expected the same weights in all 2 processes, got others in process 1")
    assert not (tmp_path / "model").exists()


def test_a_group_takes_up_the_run_of_a_single_process(tmp_path: Path, alone: dict[str, Path]) -> None:
    process = start(run_to_the_end, tmp_path, "eggroll", False, OPTIONS | {"generations": 2})
    assert ended(process) == [0]
    (tmp_path / "model" / "model.safetensors").unlink()
    assert ended(*together(2, run_to_the_end, tmp_path, "eggroll", True, OPTIONS)) == [0, 0]
    assert weights_of(tmp_path) == weights_of(alone["eggroll"])


def test_what_members_have_read_reaches_the_process_that_takes_up_the_run(tmp_path: Path) -> None:
    """Scored ES as shipped, with more episodes than one process scores at once: each has members of its own."""
    options = {"generations": 12, "rows": 48, "settings": {"population": 64, "prompts": 8, "baseline": "std"}}
    run_to_the_end(tmp_path / "alone", "scored_es", options=options)
    trained = [line for line in lines_of(tmp_path / "alone") if line["kind"] == "train"]
    assert len(trained) == 3 and all(line["scored/episodes"] > EPISODES for line in trained)
    begun = tmp_path / "two"
    run_to_the_end(begun, "scored_es", options=options | {"generations": 4})
    (begun / "model" / "model.safetensors").unlink()
    assert ended(*together(2, run_to_the_end, begun, "scored_es", True, options)) == [0, 0]
    assert weights_of(begun) == weights_of(tmp_path / "alone")


def exchange(folder: Path) -> None:
    rank = collectives.rank()
    assert collectives.world_size() == 3
    assert collectives.all_gather(torch.tensor([rank * 1.5, 2.0])).tolist() == [[0.0, 2.0], [1.5, 2.0], [3.0, 2.0]]
    assert collectives.all_gather(torch.tensor([rank == 1])).tolist() == [[False], [True], [False]]
    assert collectives.total(rank + 0.5) == 4.5
    assert list(collectives.own_share("abcde")) == [["a", "d"], ["b", "e"], ["c"]][rank]
    assert collectives.all_names(["x", "é"] if rank == 2 else []) == ["x", "é"]
    assert collectives.broadcast_text("ab é" if rank == 0 else "") == "ab é"
    given = {"a": torch.arange(3), "b": torch.ones(2, 2, dtype=torch.bfloat16)} if rank == 0 else {}
    received = collectives.broadcast_tensors(given)
    assert received["a"].tolist() == [0, 1, 2] and received["b"].dtype == torch.bfloat16
    with_gradient, without, unused = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    with_gradient.grad = torch.full((2,), float(rank))
    without.grad = torch.ones(2) if rank == 1 else None
    collectives.share_gradients([with_gradient, without, unused])
    assert with_gradient.grad.tolist() == [3.0, 3.0]
    assert without.grad is not None and without.grad.tolist() == [1.0, 1.0]
    assert unused.grad is None
    assert collectives.any_of(rank == 2) and not collectives.any_of(False)


def test_messages(tmp_path: Path) -> None:
    assert ended(*together(3, exchange, tmp_path)) == [0, 0, 0]


def test_one_process_talks_to_nobody() -> None:
    assert collectives.all_gather(torch.tensor([1.0])).tolist() == [[1.0]]
    assert collectives.total(2.0) == 2.0 and collectives.bytes_sent() == 0
    assert list(collectives.own_share([1, 2, 3])) == [1, 2, 3]
    assert collectives.broadcast_tensors({}) == {} and collectives.broadcast_text("x") == "x"


def test_only_torchruns_own_variables_make_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert (torchrun.rank(), torchrun.size(), torchrun.remembered_folder()) == (0, 1, None)

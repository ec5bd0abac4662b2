"""Weights that are not finite drop their generation, which is counted; short of memory, a run takes smaller batches."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evotext.models.language_model import LanguageModel
from evotext.rollouts.episodes import Batch
from evotext.runner.checkpointer import MOST_DROPPED
from evotext.types import Trajectories
from tests.runner.small_runs import let_go, lines_of, small_run, small_starting_model, weights_of

BAD = [float("nan"), float("inf")]


class Spoils:
    """A learner that leaves a weight that is not finite, in the generations that it is told."""

    def __init__(self, learner: Any, model: LanguageModel, value: float, when: Callable[[int], bool]) -> None:
        self._learner, self._value, self._when = learner, value, when
        self._weight = next(iter(model.network.parameters()))
        for name in ("ask", "state_dict", "load_state_dict"):
            setattr(self, name, getattr(learner, name))

    def tell(self, batch: Trajectories) -> Any:
        report = self._learner.tell(batch)
        if self._when(batch.plan.generation):
            with torch.no_grad():
                self._weight.view(-1)[0] = self._value
        return report


def dropped_in(folder: Path) -> list[float]:
    return [line["dropped_generations"] for line in lines_of(folder) if line["kind"] == "train"]


@pytest.mark.parametrize("value", BAD)
def test_weights_that_are_not_finite_are_put_back(
    tmp_path: Path, value: float, capfd: pytest.CaptureFixture[str]
) -> None:
    run = small_run(
        tmp_path, generations=3, wrap=lambda *made: Spoils(*made, value, lambda generation: generation == 2)
    )
    summary = run.train()
    assert (summary["status"], summary["dropped_generations"]) == ("completed", 1)
    assert dropped_in(tmp_path) == [0, 0, 1]
    assert "generation 3 dropped: weights that are not finite" in capfd.readouterr().err
    two = tmp_path.with_name(tmp_path.name + "-two")
    small_run(two, generations=2).train()
    assert weights_of(tmp_path) == weights_of(two), "the last good state"


def test_too_many_in_a_row_stop_the_run_with_the_last_good_state(tmp_path: Path) -> None:
    run = small_run(tmp_path, generations=2 * MOST_DROPPED, wrap=lambda *made: Spoils(*made, BAD[0], lambda _: True))
    with pytest.raises(RuntimeError, match=f"{MOST_DROPPED} generations in a row were dropped"):
        run.train()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "failed" and "the last good state is saved" in summary["reason"]
    assert summary["dropped_generations"] == MOST_DROPPED
    began = dict(small_starting_model().network.named_parameters())
    for name, weight in load_file(tmp_path / "model" / "model.safetensors").items():
        assert torch.equal(weight, began[name]), name


def test_now_and_then_does_not_stop_a_run(tmp_path: Path) -> None:
    run = small_run(
        tmp_path, generations=MOST_DROPPED + 4, wrap=lambda *made: Spoils(*made, BAD[0], lambda at: at != 5)
    )
    assert run.train()["dropped_generations"] == MOST_DROPPED + 3


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("can't allocate memory"),
    ],
)
def test_out_of_memory_halves_the_rows_and_goes_on(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fits = Batch.run

    def run_if_it_fits(batch: Any) -> None:
        if len(batch.rows) > 4:
            raise error
        fits(batch)

    monkeypatch.setattr(Batch, "run", run_if_it_fits)
    run = small_run(tmp_path, generations=2)
    summary = run.train()
    assert summary["status"] == "completed"
    assert run._collector.fitting.now == 4
    assert "out of memory: batches have 4 rows from here on" in capfd.readouterr().err
    monkeypatch.undo()
    again = small_run(tmp_path, generations=3)
    again.resume()
    assert again._collector.fitting.now == 4, "a resumed run does not find it out again"
    let_go(again)


def test_a_row_that_does_not_fit_alone_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(batch: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Batch, "run", never)
    with pytest.raises(MemoryError):
        small_run(tmp_path).train()
    assert json.loads((tmp_path / "summary.json").read_text())["reason"] == "MemoryError: "

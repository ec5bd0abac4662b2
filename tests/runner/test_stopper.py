"""Early stopping and the best weights: both go by the run's own measurements, and a resumed run decides alike."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evotext.rollouts.collector import Collector
from evotext.run_folder.ending import is_completed
from evotext.run_folder.reader import read_run
from evotext.runner.checkpoints import Checkpointing
from evotext.runner.evaluation import Evaluation, Evaluator
from evotext.runner.loop import Run
from evotext.runner.preflight import check_keep, check_split
from evotext.runner.pruner import NoPruner
from evotext.runner.stopper import NoStopper, Patience
from reports.tables import what_happened
from tests.runner.small_runs import let_go, lines_of, outcome_of, small_run
from tests.runner.test_resume import Stopped, StoppedAt

SCORES = [0.25, 0.5, 0.25, 0.5, 0.0, 0.0, 0.0]
"""The best is that of generation 1; with a patience of 2 the run ends after generation 3."""


class Scripted(Evaluator):
    """Measures as always, and gives these scores in the order of the lines that are in the run's records by then."""

    def __init__(self, folder: Path, scores: list[float], samples: int = 0) -> None:
        super().__init__(episodes=4, points=6, temperature=0.0, samples=samples, split="validation")
        self._folder, self._scores = folder, scores

    def measure(self, collector: Collector, *, sampled: bool) -> Evaluation:
        before = sum(line["kind"] == "eval" for line in lines_of(self._folder))
        score = self._scores[min(before, len(self._scores) - 1)]
        return replace(super().measure(collector, sampled=sampled), success=score, mean_return=score)


def run(folder: Path, samples: int = 0, **more: Any) -> Run:
    return small_run(folder, evaluator=Scripted(folder, SCORES, samples), **more)


def weights(folder: Path, generation: int | None = None) -> dict[str, torch.Tensor]:
    where = (
        folder / "model" / "model.safetensors" if generation is None else folder / "checkpoints" / f"{generation:08}"
    )
    return load_file(where if generation is None else where / "weights.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    names = one.keys() & other.keys()  # a tied head is in one of the files alone
    assert names
    return all(torch.equal(one[name], other[name]) for name in names)


@pytest.mark.parametrize(
    ("scores", "gain", "reason"),
    [
        ([0.5], 0.0, ""),
        ([0.5, 0.5], 0.0, ""),
        ([0.5, 0.5, 0.4], 0.0, "stopped early: the last 2 measurements were not better than 0.500"),
        ([0.1, 0.2, 0.15, 0.3], 0.0, ""),
        ([0.1, 0.2, 0.15, 0.2], 0.0, "stopped early: the last 2 measurements were not better than 0.200"),
        ([-9.0, -8.0, -7.0], 0.0, ""),
        ([0.1, 0.14, 0.19], 0.05, ""),
        (
            [0.1, 0.14, 0.15],
            0.05,
            "stopped early: the last 2 measurements were not better than 0.100 by more than 0.05",
        ),
    ],
)
def test_patience_counts_what_was_no_better_than_the_best_before(scores: list[float], gain: float, reason: str) -> None:
    assert Patience(measurements=2, gain=gain).enough(scores) == reason
    assert NoStopper().enough(scores) == ""


@pytest.mark.parametrize("samples", [0, 2])
def test_a_run_that_no_longer_improves_ends_and_says_why(
    tmp_path: Path, samples: int, capfd: pytest.CaptureFixture[str]
) -> None:
    summary = run(tmp_path, samples=samples, stopper=Patience(measurements=2, gain=0.0)).train()
    assert summary["status"] == "completed"
    assert summary["reason"] == "stopped early: the last 2 measurements were not better than 0.500"
    assert summary["budget"]["spent"] == 36 and is_completed(tmp_path, limit=72)
    assert (summary["saved_generation"], summary["eval"]["best_generation"]) == (3, 1)
    assert bool(summary["eval"]["pass_at_after"]) == bool(samples), "answers are sampled at a run's ends, this one too"
    assert "stopped early" in what_happened(read_run(tmp_path))
    assert summary["reason"] in capfd.readouterr().err


def test_the_best_weights_are_saved_if_asked_for(tmp_path: Path) -> None:
    summary = run(tmp_path / "best", stopper=Patience(measurements=2, gain=0.0), keep_weights="best").train()
    assert summary["saved_generation"] == 1 and summary["eval"]["success_best"] == 0.5
    assert summary["eval"]["success_after"] == 0.5, "of the last weights, which this time score as well"
    saved = weights(tmp_path / "best")
    assert same(saved, weights(tmp_path / "best", 1)) and not same(saved, weights(tmp_path / "best", 3))
    assert "saved the weights of generation 1 (validation success 0.50" in what_happened(read_run(tmp_path / "best"))
    run(tmp_path / "last", stopper=Patience(measurements=2, gain=0.0)).train()
    assert same(weights(tmp_path / "last"), weights(tmp_path / "last", 3))


def test_a_run_says_which_weights_it_saved(tmp_path: Path) -> None:
    finished = run(tmp_path, keep_weights="best")
    finished.train()
    assert "validation success 0.250 -> 0.000 (saved: 0.500 of generation 1)" in finished.outcome


@pytest.mark.parametrize("generation", [2, 3])
def test_a_resumed_run_stops_where_one_does_that_was_never_stopped(tmp_path: Path, generation: int) -> None:
    options: dict[str, Any] = {"stopper": Patience(measurements=2, gain=0.0), "keep_weights": "best"}
    summary = run(tmp_path / "whole", **options).train()
    broken_off = run(tmp_path / "parts", wrap=lambda one, _: StoppedAt(one, generation - 1, "tell"), **options)
    with pytest.raises(Stopped):
        broken_off.train()
    rest = run(tmp_path / "parts", **options)
    rest.resume()
    again = rest.train()
    assert outcome_of(tmp_path / "parts") == outcome_of(tmp_path / "whole")
    assert (again["reason"], again["saved_generation"]) == (summary["reason"], summary["saved_generation"])


class KilledAtTheDecision(Patience):
    def enough(self, scores: Any) -> str:
        if super().enough(scores):
            raise Stopped
        return ""


def test_a_run_killed_when_it_was_about_to_stop_goes_no_further(tmp_path: Path) -> None:
    run(tmp_path / "whole", stopper=Patience(measurements=2, gain=0.0)).train()
    with pytest.raises(Stopped):
        run(tmp_path / "parts", stopper=KilledAtTheDecision(measurements=2, gain=0.0)).train()
    rest = run(tmp_path / "parts", stopper=Patience(measurements=2, gain=0.0))
    rest.resume()
    rest.train()
    assert outcome_of(tmp_path / "parts") == outcome_of(tmp_path / "whole")


def test_a_damaged_best_checkpoint_leaves_the_last_weights(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Spoiling(Scripted):
        def measure(self, collector: Collector, *, sampled: bool) -> Evaluation:
            best = tmp_path / "checkpoints" / "00000001" / "weights.safetensors"
            if best.exists():
                best.write_bytes(b"")
            return super().measure(collector, sampled=sampled)

    summary = small_run(tmp_path, evaluator=Spoiling(tmp_path, SCORES), keep_weights="best").train()
    assert summary["saved_generation"] == 6 and same(weights(tmp_path), weights(tmp_path, 6))
    assert "00000001 cannot be used" in capfd.readouterr().err


def test_held_out_instances_choose_neither_the_end_nor_the_weights() -> None:
    held_out = Evaluator(episodes=5, points=3, temperature=0.0, samples=0)
    validation = Evaluator(episodes=5, points=3, temperature=0.0, samples=0, split="validation")
    patience = Patience(measurements=2, gain=0.0)
    with pytest.raises(ValueError, match="stopper: expected evaluation.split=validation, got test; when a run ends"):
        check_split(NoPruner(), held_out, stopper=patience)
    with pytest.raises(ValueError, match="keep: expected evaluation.split=validation, got test; which weights"):
        check_split(NoPruner(), held_out, keep="best")
    check_split(NoPruner(), validation, stopper=patience, keep="best")
    with pytest.raises(ValueError, match="expected at least 1 with keep=best"):
        check_keep("best", Checkpointing(seconds=60, keep=0))


def test_an_unmeasured_run_saves_what_it_has(tmp_path: Path) -> None:
    """Broken off before its first measurement."""
    first = run(tmp_path, keep_weights="best")
    first._checkpointer.save_model(first._at)
    let_go(first)
    assert first._at.saved_generation == 0 and (tmp_path / "model").is_dir()
    assert json.loads((tmp_path / "model" / "config.json").read_text())

"""The loop: what it asks and tells, records and survives, with a small algorithm that only counts."""

import json
import os
import signal
from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import AutoModelForCausalLM

from evotext.keys.instances import held_out_instances, train_instances
from evotext.models.language_model import LanguageModel
from evotext.rollouts.collector import Collector
from evotext.run_folder.writer import JsonLines
from evotext.runner.budget import Budget, Unit
from evotext.runner.checkpoints import Checkpointing
from evotext.runner.evaluation import Evaluator
from evotext.runner.loop import Run
from evotext.trackers.tensorboard import TensorBoard
from evotext.types import Cost, Outcome, RolloutPlan, Sampling, Trajectories, UpdateReport
from tests.rollouts.chatter import chatter
from tests.runner.small_runs import Starting
from tests.small_models import small_model


class Counting:
    """Asks for four rows a generation and adds 1 to one weight; does `trouble` at generation 3.

    skipped: generations that it reports to have carried no signal.
    """

    def __init__(self, model: LanguageModel, seed: int, trouble: Any = None, skipped: Container[int] = ()) -> None:
        self.model, self.seed = model, seed
        self.trouble, self.asked, self.skipped = trouble, 0, skipped

    def ask(self, generation: int) -> RolloutPlan:
        assert generation == self.asked, "generations are counted from 0 without gaps"
        self.asked += 1
        if generation == 3 and self.trouble:
            self.trouble()
        return RolloutPlan(
            seed=self.seed,
            generation=generation,
            instances=train_instances(self.seed, generation, 4),
            groups=(0, 1, 2, 3),
            sampling=Sampling(temperature=1.0),
        )

    def tell(self, batch: Trajectories) -> UpdateReport:
        with torch.no_grad():
            next(self.model.network.parameters()).view(-1)[0] += 1.0
        notes = ("warning: mind the gap",) if batch.plan.generation == 1 else ()
        return UpdateReport(
            outcome=Outcome.NO_SIGNAL if batch.plan.generation in self.skipped else Outcome.CHANGED,
            metrics={"mine": 1.5},
            cost=Cost(updates=1, update_seconds=0.125),
            notes=notes,
        )

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        return


def run(
    folder: Path,
    trouble: Any = None,
    updates: float = 6,
    skipped: Container[int] = (),
    learner: type[Counting] = Counting,
) -> tuple[Run, LanguageModel]:
    model = small_model("llama", torch.float32)
    return Run(
        algorithm=Starting(lambda model, seed: learner(model, seed, trouble, skipped)),
        model=model,
        collector=Collector(model, chatter(), rows=8),
        budget=Budget(unit="updates", limit=updates),
        evaluator=Evaluator(episodes=5, points=3, temperature=0.0, samples=2),
        trackers=[JsonLines(folder), TensorBoard(folder)],
        seed=7,
        names={"algorithm": "counting", "env": "chatter", "model": "small"},
        folder=folder,
        checkpointing=Checkpointing(seconds=60, keep=1),
    ), model


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_a_run_leaves_a_complete_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training, model = run(tmp_path)
    before = float(next(model.network.parameters()).detach().view(-1)[0])
    summary = training.train()
    assert capsys.readouterr().err.splitlines().count("warning: mind the gap") == 1
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "completed" and summary["seed"] == 7
    assert summary["budget"] == {"unit": "updates", "limit": 6.0, "spent": 6.0}
    assert summary["eval"]["episodes"] == 5 and summary["eval"]["decoding"] == "greedy"  # type: ignore[index]
    assert summary["cost"]["episodes"] == 24 and summary["cost"]["peak_memory_bytes"] > 1e6  # type: ignore[index]
    assert [line["generation"] for line in records(tmp_path, "train")] == [1, 2, 3, 4, 5, 6]
    assert [line["generation"] for line in records(tmp_path, "eval")] == [0, 2, 4, 6]
    last = records(tmp_path, "train")[-1]
    assert last["mine"] == 1.5 and last["episodes"] == 24 and last["seconds"] > 6 * 0.125
    passes = [[key for key in line if "pass@" in key] for line in records(tmp_path, "eval")]
    assert passes == [["eval/pass@1", "eval/pass@2"], [], [], ["eval/pass@1", "eval/pass@2"]]  # at a run's ends
    assert summary["eval"]["pass_at_after"].keys() == {"1", "2"}  # type: ignore[index]
    assert summary["evaluation_cost"]["episodes"] == 5 + 4 * 5 + 2 * 10  # type: ignore[index]
    assert summary["evaluation_cost"]["flops"] > 0  # type: ignore[index]
    assert any((tmp_path / "tensorboard").iterdir())
    tuned = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert float(next(tuned.parameters()).detach().view(-1)[0]) == pytest.approx(before + 6)


@pytest.mark.parametrize(("split", "named"), [("test", "held-out"), ("validation", "validation")])
def test_what_is_measured_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], split: Literal["test", "validation"], named: str
) -> None:
    training, _ = run(tmp_path, updates=1)
    training._evaluator = Evaluator(episodes=5, points=1, temperature=0.0, samples=0, split=split)
    training.train()
    assert training.outcome.startswith(f"{named} success 1.000 -> 1.000")
    assert f"100%  {named} success 1.000" in capsys.readouterr().err


@pytest.mark.parametrize(("skipped", "told"), [(range(6), 1), (range(5), 0), ((), 0)])
def test_a_run_without_any_signal_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], skipped: Container[int], told: int
) -> None:
    run(tmp_path, skipped=skipped)[0].train()
    said = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("nothing was learned: in every generation all answers") for line in said) == told
    assert [line["skipped"] for line in records(tmp_path, "train")] == [float(i in skipped) for i in range(6)]


class Idle(Counting):
    """A learner whose skipped generations change nothing."""

    def tell(self, batch: Trajectories) -> UpdateReport:
        updates = int(batch.plan.generation not in self.skipped)
        return replace(super().tell(batch), cost=Cost(updates=updates))


@pytest.mark.parametrize(("until", "unit"), [(1000, "updates"), (7, "updates"), (7, "episodes")])
def test_generations_without_an_update_are_none_and_a_budget_in_updates_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], until: int, unit: Unit
) -> None:
    """An update in every third generation, or none from some on: then a run ends, measured, after four in a row for nothing."""
    monkeypatch.setattr("evotext.runner.budget.MOST_IDLE", 4)
    idle = [generation for generation in range(1000) if generation % 3 != 2 or generation >= until]
    training, _ = run(tmp_path, skipped=idle, learner=Idle)
    training._budget = Budget(unit=unit, limit=6 if unit == "updates" else 60)
    summary = training.train()
    assert summary["status"] == "completed"
    evaluations = records(tmp_path, "eval")
    assert "eval/pass@1" in evaluations[-1]
    if unit == "episodes":
        assert summary["cost"]["updates"] == 2 and summary["cost"]["episodes"] == 60  # type: ignore[index]
        assert summary["reason"] is None
    elif until == 1000:
        assert summary["cost"]["updates"] == 6 and summary["reason"] is None  # type: ignore[index]
        assert [line["generation"] for line in evaluations] == [0, 6, 12, 18]
    else:
        assert summary["budget"] == {"unit": "updates", "limit": 6.0, "spent": 2.0}
        assert (
            summary["reason"] == "4 generations in a row made no update, so that the rest of the budget is out of reach"
        )
        assert summary["reason"] in capsys.readouterr().err
        assert [line["generation"] for line in evaluations] == [0, 6, 10]


class Reading(Counting):
    """Learns from episodes that it did not ask for: it charges two itself."""

    def ask(self, generation: int) -> RolloutPlan:
        return replace(super().ask(generation), instances=(), groups=())

    def tell(self, batch: Trajectories) -> UpdateReport:
        assert batch.tokens_BT.shape == (0, 0) and batch.cost == Cost() and batch.transcripts == ()
        return replace(super().tell(batch), cost=Cost(updates=1, episodes=2, env_seconds=0.5))


def test_a_generation_without_rollouts_is_charged_by_its_report(tmp_path: Path) -> None:
    """No return is logged where no episode was run, and the budget ends all the same."""
    training, _ = run(tmp_path, learner=Reading)
    training._budget = Budget(unit="episodes", limit=6)
    summary = training.train()
    assert summary["status"] == "completed" and summary["dropped_generations"] == 0
    assert summary["budget"]["spent"] == 6  # type: ignore[index]
    lines = records(tmp_path, "train")
    assert [line["episodes"] for line in lines] == [2, 4, 6]
    assert all(line["env_seconds"] == 0.5 and "return_mean" not in line for line in lines)


def test_a_stop_lets_the_generation_end_and_records_it(tmp_path: Path) -> None:
    training, _ = run(tmp_path, trouble=lambda: os.kill(os.getpid(), signal.SIGINT))
    summary = training.train()
    assert summary["status"] == "interrupted"
    assert [line["generation"] for line in records(tmp_path, "train")] == [1, 2, 3, 4]
    assert (tmp_path / "model" / "config.json").exists()


def test_a_second_stop_ends_it_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)

    training, _ = run(tmp_path, trouble=twice)
    assert training.train()["status"] == "interrupted"
    assert [line["generation"] for line in records(tmp_path, "train")] == [1, 2, 3]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_failure_is_recorded_and_passed_on(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("out of luck")

    training, _ = run(tmp_path, trouble=fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        training.train()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "failed" and summary["reason"] == "RuntimeError: out of luck"
    assert len(records(tmp_path, "train")) == 3


def test_held_out_seeds_are_no_training_seeds_and_training_seeds_do_not_repeat() -> None:
    held_out = set(held_out_instances(2000))
    training = [i for generation in range(200) for i in train_instances(0, generation, 20)]
    assert held_out.isdisjoint(training)
    assert len(set(training)) > 3990  # 31 bits: a chance repetition is possible, a pattern is not
    assert held_out_instances(10) == held_out_instances(2000)[:10]
    assert train_instances(0, 1, 5) != train_instances(1, 1, 5) != train_instances(1, 0, 5)

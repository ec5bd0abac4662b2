"""The runner writes into a run's folder exactly what the package of run folders knows and reads."""

import json
from pathlib import Path

import pytest
import torch

from evotext.run_folder import names
from evotext.run_folder.cost import AXES, COSTS
from evotext.run_folder.ending import ended_well, final_score, is_completed
from evotext.run_folder.reader import read_evaluations, read_run
from evotext.run_folder.schema import EvaluationRecord, Phase, Summary
from evotext.runner.budget import Budget
from evotext.runner.evaluation import Evaluation, Evaluator
from evotext.runner.preflight import check_split
from evotext.runner.pruner import NoPruner
from evotext.runner.run_state import RunState
from evotext.runner.summary import summarise
from evotext.types import Cost
from tests.runner.small_runs import small_run


def test_a_run_is_read_as_it_was_recorded(tmp_path: Path) -> None:
    told = small_run(tmp_path).train()
    record = json.loads((tmp_path / names.SUMMARY).read_text())
    assert record == told and record.keys() == Summary.model_fields.keys(), "no field of the schema is left out"
    assert record["eval"].keys() == EvaluationRecord.model_fields.keys()
    assert tuple(record["cost"]) == COSTS and tuple(record["evaluation_cost"]) == AXES
    assert (record["phase"], record["eval"]["split"], record["eval"]["decoding"]) == ("reporting", "test", "greedy")
    run = read_run(tmp_path)
    assert run.problems == () and (run.algorithm, run.env, run.seed) == ("eggroll", "chatter", 3)
    assert run.cost["generated_tokens"] == record["cost"]["generated_tokens"]
    assert [point.generation for point in run.points] == [0, 3, 6]
    assert [line.spent for line in read_evaluations(tmp_path, [])] == [0.0, 0.5, 1.0]
    assert final_score(run) == record["eval"]["success_after"] and len(run.samples) == 3
    assert is_completed(tmp_path, limit=72) and not is_completed(tmp_path, limit=73) and ended_well(tmp_path)


def summary_of(phase: Phase, mean_return: float) -> Summary:
    measured = Evaluation(episodes=4, mean_return=mean_return, success=0.0, mean_tokens=1.0, cost=Cost())
    return summarise(
        names={"algorithm": "a", "env": "e", "model": "m"},
        seed=0,
        phase=phase,
        status="completed",
        reason=None,
        budget=Budget(unit="updates", limit=1),
        evaluator=Evaluator(episodes=4, points=1, temperature=0.5, samples=0, split="validation"),
        state=RunState(first=measured, last=measured),
        device=torch.device("cpu"),
    )


def test_a_trial_and_its_instances_are_fields() -> None:
    summary = summary_of("tuning", 0.5)
    assert summary.phase == "tuning" and summary.eval.split == "validation"
    assert summary.eval.decoding == "temperature 0.5" and summary.eval.return_after == 0.5


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_return_that_is_not_finite_breaks_no_record(wrong: float) -> None:
    assert summary_of("reporting", wrong).eval.return_after is None


def test_a_trial_does_not_see_held_out_instances() -> None:
    held_out = Evaluator(episodes=4, points=1, temperature=0.0, samples=0)
    with pytest.raises(ValueError, match=r"phase: expected evaluation\.split=validation with phase=tuning, got test"):
        check_split(NoPruner(), held_out, "tuning")
    check_split(NoPruner(), held_out, "reporting")

"""The contents of a summary and a line: strict when written, forgiving when read, and open to what is newer or older."""

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evotext.run_folder import names
from evotext.run_folder.cost import AXES, COSTS, EVALUATION_COSTS, Cost, on_axes, totals
from evotext.run_folder.reader import read_run, read_summary
from evotext.run_folder.schema import BudgetRecord, EvaluationRecord, Line, Summary
from evotext.run_folder.writer import JsonLines, write_summary
from tests.reports.run_folders import write_run

SUMMARY: dict[str, Any] = {
    "algorithm": "grpo",
    "seed": 3,
    "status": "completed",
    "budget": {"unit": "episodes", "limit": 100, "spent": 120},
    "eval": {"success_after": 0.5, "return_after": None, "pass_at_after": {"1": 0.25, "4": 1.0}, "split": "validation"},
    "cost": {"episodes": 120, "flops": 1e9},
    "versions": {"python": "3.11"},
}


def test_what_was_written_is_read() -> None:
    summary = Summary.model_validate(SUMMARY)
    assert summary.eval.pass_at_after == {1: 0.25, 4: 1.0} and summary.cost["episodes"] == 120
    assert summary.env is None and summary.eval.return_after is None and summary.evaluation_cost == {}
    assert Summary.model_validate(json.loads(json.dumps(summary.model_dump(mode="json")))) == summary


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"status": "finished"}, "status is finished"),
    ({"seed": "three"}, "seed is three"),
    ({"seed": True}, "seed is bool"),
    ({"budget": {"limit": -1.0}}, "limit is -1.0"),
    ({"budget": 7}, "budget is 7"),
    ({"eval": {"success_after": 1.5}}, "success_after is 1.5"),
    ({"eval": {"split": "train"}}, "split is train"),
    ({"eval": {"return_after": float("nan")}}, "return_after is nan"),
    ({"cost": {"flops": 10**400}}, "flops is"),
    ({"cost": {"episodes": "many"}}, "episodes is many"),
    ({"eval": {"pass_at_after": {"few": 0.5}}}, "few is 0.5"),
    ({"versions": {"torch": 2}}, "torch is 2"),
]


@pytest.mark.parametrize(("change", "complaint"), WRONG, ids=str)
def test_a_wrong_value_is_refused_or_named_and_the_rest_kept(change: dict[str, Any], complaint: str) -> None:
    (key, value), *_ = change.items()
    known = SUMMARY.get(key)
    record = SUMMARY | {key: known | value if isinstance(known, dict) and isinstance(value, dict) else value}
    with pytest.raises(ValidationError):
        Summary.model_validate(record)
    problems: list[str] = []
    summary = Summary.model_validate(record, context=problems)
    assert len(problems) == 1 and problems[0].startswith(complaint), problems
    kept = summary.model_dump(mode="json")
    for name, whole in Summary.model_validate(SUMMARY).model_dump(mode="json").items():
        if name != key:
            assert kept[name] == whole
        elif isinstance(value, dict):  # its other entries
            assert all(kept[name][k] == v for k, v in whole.items() if k not in value)


def test_unknown_fields_are_let_pass() -> None:
    problems: list[str] = []
    newer = SUMMARY | {"faults_of_tomorrow": {"raised": 3}, "cost": SUMMARY["cost"] | {"joules": 5.0}}
    summary = Summary.model_validate(newer, context=problems)
    assert summary.status == "completed" and summary.cost["episodes"] == 120 and problems == []


def test_the_names_of_costs_are_those_of_the_cost() -> None:
    cost = Cost(**{f.name: i for i, f in enumerate(fields(Cost), start=1)})
    assert tuple(totals(cost, peak_memory_bytes=7)) == COSTS
    assert on_axes(cost) == {"episodes": 1, "generated_tokens": 3, "seconds": 5 + 6 + 7, "flops": 8}
    assert tuple(on_axes(cost)) == AXES and [f"evaluation_{axis}" for axis in AXES] == list(EVALUATION_COSTS)
    assert set(AXES) <= set(Line.model_fields)


def test_a_line_is_checked_as_it_is_written(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path)
    lines.log({"kind": "train", "generation": 1, "episodes": 8, "mine/kl": math.nan, "loss": 0.5})
    for wrong in ({"generation": -1}, {"episodes": math.inf, "generation": "one"}, {"eval/success": 2.0}):
        with pytest.raises(ValueError, match="validation error"):
            lines.log({"kind": "eval", **wrong})
    lines.close()
    (line,) = (tmp_path / names.METRICS).read_text().splitlines()
    assert json.loads(line) == {"kind": "train", "generation": 1, "episodes": 8, "mine/kl": None, "loss": 0.5}


def test_a_summary_is_read_strictly_where_that_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_summary(tmp_path)
    problems: list[str] = []
    assert read_summary(tmp_path, problems) is None and problems == ["summary.json is missing"]
    for text, complaint in (("{", "summary.json cannot be read (JSONDecodeError)"), ("[]", "is not a JSON object")):
        (tmp_path / names.SUMMARY).write_text(text)
        with pytest.raises(ValueError):  # noqa: PT011 (json's own words)
            read_summary(tmp_path)
        problems = []
        assert read_summary(tmp_path, problems) is None and complaint in problems[0]
    write_summary(tmp_path, Summary(seed=3, budget=BudgetRecord(unit="updates", limit=2, spent=2)))
    summary = read_summary(tmp_path)
    assert summary is not None and summary.seed == 3 and summary.budget.limit == 2
    assert [path.name for path in tmp_path.iterdir()] == [names.SUMMARY]


@pytest.mark.parametrize(
    ("decoding", "seed", "read"),
    [
        ("greedy", 3, ("greedy", "test", "reporting")),
        ("temperature 1 on validation instances", 3, ("temperature 1", "validation", "reporting")),
        ("greedy on validation instances", 1_000_003, ("greedy", "validation", "tuning")),
    ],
)
def test_older_runs_tell_split_and_phase_by_prose_and_seed(
    tmp_path: Path, decoding: str, seed: int, read: tuple[str, str, str]
) -> None:
    folder = write_run(tmp_path / "run", seed=seed)
    record = json.loads((folder / names.SUMMARY).read_text())
    del record["phase"], record["eval"]["split"], record["reason"], record["processes"]
    record["eval"]["decoding"] = decoding
    (folder / names.SUMMARY).write_text(json.dumps(record))
    config = (folder / names.HYDRA / names.CONFIG).read_text()
    (folder / names.HYDRA / names.CONFIG).write_text(config.replace("phase: reporting\n", ""))
    run = read_run(folder)
    assert (run.decoding, run.split, run.phase) == read and run.problems == ()
    (folder / names.SUMMARY).unlink()  # killed
    assert read_run(folder).phase == read[2]


def test_a_killed_trial_is_one_by_its_configuration(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", phase="tuning")
    (folder / names.SUMMARY).unlink()
    assert (read_run(folder).phase, read_run(folder).status) == ("tuning", "unfinished")


def test_a_task_without_success_has_a_return_alone(tmp_path: Path) -> None:
    evaluation = EvaluationRecord(return_before=-3.0, return_after=2.0, split="test", decoding="greedy")
    write_summary(tmp_path, Summary(status="completed", eval=evaluation))
    run = read_run(tmp_path)
    assert run.after["return"] == 2.0 and math.isnan(run.after["success"]) and run.before["return"] == -3.0
    assert run.problems == ("metrics.jsonl is missing",)

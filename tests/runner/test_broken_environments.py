"""An environment that fails shows in every record of a run, and one that does nothing else ends it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from evotext.distributed import collectives
from evotext.rollouts.collector import Collector
from evotext.rollouts.environment_calls import MOST_HANGS, BrokenEnvironment
from evotext.run_folder.ending import final_score
from evotext.run_folder.reader import read_run
from evotext.runner.budget import Budget
from evotext.runner.closing import closing_lines
from evotext.runner.preflight import check_prompts
from evotext.runner.run_state import RunState
from evotext.types import Cost, Ending, Outcome, RolloutPlan, Sampling
from tests.rollouts.chatter import chatter
from tests.runner.small_runs import (
    EPISODES,
    ended,
    let_go,
    lines_of,
    run_to_the_end,
    small_run,
    small_starting_model,
    together,
)
from tests.runner.test_preflight import outline


def training_lines(folder: Path) -> list[dict[str, Any]]:
    return [line for line in lines_of(folder) if line["kind"] == "train"]


@pytest.mark.parametrize("algorithm", ["eggroll", "grpo", "ppo"])
def test_faults_are_counted_shown_and_kept(tmp_path: Path, algorithm: str, capfd: pytest.CaptureFixture[str]) -> None:
    summary = small_run(tmp_path, algorithm, generations=4, fault="some").train()
    lines = training_lines(tmp_path)
    rates = [line["fault_rate"] for line in lines]
    assert 0 < sum(rates) < 4, "the test wants some of both"
    counts = [round(sum(rates[: i + 1]) * EPISODES) for i in range(4)]
    assert [line.get("faults/raised", 0) for line in lines] == counts
    assert summary["status"] == "completed" and summary["faults"] == {"raised": counts[-1]}
    measured = [line["eval/fault_rate"] for line in lines_of(tmp_path) if line["kind"] == "eval"]
    assert any(measured) and summary["evaluation_faults"]["raised"] > 0  # type: ignore[index]
    said = capfd.readouterr().err.splitlines()
    first = [line for line in said if "the environment's step raised RuntimeError: lost the [/database]" in line]
    assert len(first) == 1 and "counted as raised" in first[0]
    followed = [line for line in said if "held-out success" in line]
    assert all("  faults " in line for line in followed[1:])
    (closing,) = [line for line in said if line.startswith("warning: faults of the environment ended")]
    assert f"{counts[-1]} of {4 * EPISODES} training episodes" in closing
    text = (tmp_path / "faults" / "raised.txt").read_text()
    assert "toy_environments.py" in text and "RuntimeError: lost the [/database]" in text


def test_without_faults_nothing_is_said_of_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    summary = small_run(tmp_path, generations=2).train()
    assert summary["faults"] == summary["evaluation_faults"] == {}
    assert [line["fault_rate"] for line in training_lines(tmp_path)] == [0.0, 0.0]
    assert not any("faults/" in key for line in lines_of(tmp_path) for key in line)
    assert "fault" not in capfd.readouterr().err and not (tmp_path / "faults").exists()


@pytest.mark.parametrize("algorithm", ["eggroll", "grpo", "ppo"])
@pytest.mark.parametrize("generations", [1, 4])
def test_nothing_but_faults_ends_the_run(
    tmp_path: Path, algorithm: str, generations: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """It ends after two generations, or with the budget if that is smaller."""
    with pytest.raises(BrokenEnvironment) as error:
        small_run(tmp_path, algorithm, generations=generations, fault="all").train()
    lasted = min(generations, 2)
    assert f"faults of the environment ended all {lasted * EPISODES} training episodes" in str(error.value)
    assert "step raised RuntimeError: lost the [/database]" in str(error.value) and str(tmp_path) in str(error.value)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["status"], summary["faults"]) == ("failed", {"raised": lasted * EPISODES})
    assert summary["reason"] == f"BrokenEnvironment: {error.value}"
    assert len(training_lines(tmp_path)) == lasted
    assert "nothing was learned" not in capfd.readouterr().err


def test_a_resumed_run_goes_on_counting_and_does_not_say_it_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small_run(tmp_path / "whole", generations=4, fault="some").train()
    (tmp_path / "parts").mkdir()
    small_run(tmp_path / "parts", generations=2, fault="some").train()
    assert "counted as raised" in capfd.readouterr().err
    again = small_run(tmp_path / "parts", generations=4, fault="some")
    again.resume()
    again.train()
    assert "counted as raised" not in capfd.readouterr().err
    whole, parts = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "parts"))
    assert parts["faults"] == whole["faults"]


def test_processes_tell_each_other_of_their_faults(tmp_path: Path) -> None:
    """Faults seen by one process are in the records that another writes."""
    options = {"generations": 2, "rows": 4, "fault": "some"}
    run_to_the_end(tmp_path / "alone", "eggroll", options=options)
    assert ended(*together(2, run_to_the_end, tmp_path / "two", "eggroll", False, options)) == [0, 0]
    alone, two = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("alone", "two"))
    assert two["faults"] == alone["faults"] and two["evaluation_faults"] == alone["evaluation_faults"]
    assert "lost the [/database]" in (tmp_path / "two" / "faults" / "raised.txt").read_text()


def faults_of_the_second_process(folder: Path) -> None:
    """Rows 0 and 1 are the first process's; of their instances, multiples of 4, every step fails, and of no other."""
    collector = Collector(small_starting_model(), chatter(fault="step"), rows=2)
    for tokens in (True, False):
        plan = RolloutPlan(
            seed=0,
            generation=0,
            instances=(2, 2, 4, 4),
            groups=(0, 1, 2, 3),
            sampling=Sampling(temperature=1.0),
            tokens=tokens,
        )
        batch = collector.collect(plan)
        assert batch.ending_B.tolist() == [Ending.TASK, Ending.TASK, Ending.RAISED, Ending.RAISED]
        assert [(fault.kind, fault.instance, fault.error) for fault in batch.faults] == [
            (Ending.RAISED, 4, "RuntimeError: broken at step")
        ]
        own = torch.tensor([True, True, False, False]) ^ bool(collectives.rank())
        assert batch.has_tokens_B.tolist() == ([True] * 4 if tokens else own.tolist())
        assert torch.equal(batch.policy_mask_BT.any(1), batch.has_tokens_B)


def test_a_batch_over_processes_says_which_tokens_are_here_and_what_failed_elsewhere(tmp_path: Path) -> None:
    assert ended(*together(2, faults_of_the_second_process, tmp_path)) == [0, 0]


@pytest.mark.parametrize(
    ("outcomes", "faults", "told"),
    [
        ({Outcome.NO_SIGNAL: 3}, {}, "all answers got the same reward"),
        (
            {Outcome.NO_SIGNAL: 3},
            {"raised": 20},
            "faults of the environment ended 20 of 100 training episodes (raised 20)",
        ),
        ({Outcome.NO_SIGNAL: 2, Outcome.NOT_FINITE: 1}, {}, "in 1 of 3 generations every step was dropped"),
        ({Outcome.NO_SIGNAL: 1, Outcome.HELD: 2}, {}, "the budget ended before enough groups"),
        ({Outcome.CHANGED: 1, Outcome.NO_SIGNAL: 2}, {}, ""),
    ],
)
def test_why_nothing_was_learned(outcomes: dict[Outcome, int], faults: dict[str, int], told: str) -> None:
    at = RunState(
        generation=3,
        cost=Cost(episodes=100),
        outcomes=Counter({outcome.value: count for outcome, count in outcomes.items()}),
        faults=Counter(faults),
    )
    lines = list(closing_lines(at, Budget(unit="episodes", limit=100)))
    if told:
        (line,) = lines
        assert line.startswith("nothing was learned: ") and told in line
        assert ("same reward" in line) == (told == "all answers got the same reward")
    else:
        assert lines == []


@pytest.mark.parametrize(
    ("generations", "limit", "told"),
    [
        (1, 30, "warning: one generation takes more than the budget: 100 of 30 episodes"),
        (1, 100, ""),
        (3, 91, ""),
        (3, 80, "warning: the budget was overshot by 25%, 100 of 80 episodes"),
        (3, 1000, ""),
    ],
)
def test_a_budget_that_is_too_small_is_said(generations: int, limit: float, told: str) -> None:
    at = RunState(
        generation=generations, cost=Cost(episodes=100), outcomes=Counter({Outcome.CHANGED.value: generations})
    )
    lines = list(closing_lines(at, Budget(unit="episodes", limit=limit)))
    assert [line.split(";")[0].split(", for")[0] for line in lines] == [told] * bool(told)


def test_amounts_of_a_budget_are_read_at_a_glance() -> None:
    at = RunState(generation=2, cost=Cost(rollout_seconds=66.41234, flops=1.5e12), outcomes=Counter({"changed": 2}))
    told = [
        next(closing_lines(at, Budget(unit=unit, limit=limit))) for unit, limit in (("seconds", 60.0), ("flops", 1e12))
    ]
    assert [", ".join(line.split(", ")[1:2]) for line in told] == [
        "66.41 of 60 seconds",
        "1.5e+12 of 1e+12 flops",
    ]


@pytest.mark.parametrize(("limit", "told"), [(5, "one generation takes more"), (18, ""), (24, "")])
def test_a_run_says_it_of_its_budget(tmp_path: Path, limit: int, told: str, capfd: pytest.CaptureFixture[str]) -> None:
    run = small_run(tmp_path, "grpo")
    run._budget = Budget(unit="episodes", limit=limit)
    run.train()
    said = capfd.readouterr().err
    assert told in said and ("budget" in said) == bool(told)


@pytest.mark.parametrize("fault", ["reset", "reset_none"])
def test_an_environment_that_never_opens_is_refused_before_the_model_is_loaded(fault: str) -> None:
    with pytest.raises(BrokenEnvironment, match="none of 16 episodes could be opened: the environment's reset"):
        check_prompts(outline(256), chatter(fault=fault))


def test_an_environment_that_sometimes_opens_may_run() -> None:
    check_prompts(outline(256), chatter(fault="reset_some"))


@pytest.mark.parametrize(("fault", "call"), [("hang_all", "step"), ("reset_hang", "reset")])
def test_an_environment_that_only_hangs_is_not_waited_for_in_every_row(fault: str, call: str) -> None:
    task = chatter(fault=fault, step_seconds=0.2)
    plan = RolloutPlan(seed=0, generation=0, instances=(0,) * 50, groups=(0,) * 50, sampling=Sampling(temperature=1.0))
    with pytest.raises(BrokenEnvironment, match=f"each of the first {MOST_HANGS} calls of {call} took longer"):
        Collector(small_starting_model(), task, rows=50).collect(plan)


def test_a_task_without_success_goes_by_its_return(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = small_run(tmp_path, "grpo", generations=2, task="NoThreshold")
    summary = run.train()
    evaluation: Any = summary["eval"]
    assert evaluation["success_after"] is None and evaluation["pass_at_after"] == {}
    assert run.outcome.startswith(f"held-out return {evaluation['return_before']:.3f} -> ")
    keys = {key for line in lines_of(tmp_path) for key in line}
    assert "eval/return" in keys and "return_mean" in keys
    assert not {"eval/success", "success_rate", "groups/all_solved"} & keys
    assert "held-out return" in capfd.readouterr().err
    assert final_score(read_run(tmp_path)) == evaluation["return_after"]
    again = small_run(tmp_path, "grpo", generations=4, task="NoThreshold")
    again.resume()
    assert again.outcome.startswith(f"held-out return {evaluation['return_before']:.3f} -> ")
    let_go(again)

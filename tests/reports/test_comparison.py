"""Grouping, fairness and verdicts: what may be claimed, and what must be said."""

import csv
import io
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from evotext.run_folder.find import find_runs
from evotext.run_folder.reader import read_run
from reports.comparison import Comparison, _said, compare
from reports.figures import metric_title
from reports.html_report import html_report
from reports.markdown import markdown
from reports.picture import picture
from reports.tables import results_csv
from reports.tasks import fewest_for_a_claim
from reports.verdicts import answer, clear_winner, setting, verdict
from tests.reports.run_folders import write_run

NOW = datetime(2026, 1, 2)


def compared(root: Path) -> Comparison:
    return compare([read_run(folder) for folder in find_runs([root])], metric="success", seed=0)


def write_finals(root: Path, finals: dict[str, list[float]], env: str = "sort", **options: Any) -> None:
    for algorithm, scores in finals.items():
        for seed, final in enumerate(scores):
            folder = root / f"{env}-{algorithm}-{seed}"
            write_run(folder, algorithm=algorithm, env=env, seed=seed, final=final, **options)


def test_figures_of_a_task(tmp_path: Path) -> None:
    write_finals(tmp_path, {"eggroll": [0.5, 0.6, 0.7, 0.9], "grpo": [0.8, 0.8]})
    (task,) = compared(tmp_path).tasks
    eggroll, grpo = task.contestants
    assert (task.name, eggroll.name, grpo.name) == ("sort", "eggroll", "grpo")
    assert eggroll.after is not None and eggroll.after.value == pytest.approx(0.65)  # lowest and highest cut off
    assert grpo.after is not None and grpo.after.value == 0.8 and grpo.after.interval is None
    assert eggroll.before is not None and eggroll.before.value == 0.2
    assert eggroll.cost["episodes"] == 40_960 and eggroll.cost["peak_memory_bytes"] == 612_000_000
    assert eggroll.bands["seconds"].runs == 4 and eggroll.bands["episodes"].cost[-1] == 40_960
    assert eggroll.bands["episodes"].score[-1] == pytest.approx(0.65)


def test_five_seeds_apart_are_a_claim(tmp_path: Path) -> None:
    write_finals(tmp_path, {"eggroll": [0.5, 0.52, 0.54, 0.56, 0.58], "grpo": [0.9, 0.91, 0.92, 0.93, 0.94]})
    (task,) = compared(tmp_path).tasks
    (duel,) = task.duels
    assert (duel.first, duel.second) == ("grpo", "eggroll") and duel.clear
    assert duel.improvement.value == 1.0 and duel.p_value == pytest.approx(2 / 252)
    assert clear_winner(task) == "grpo"
    assert verdict(task).startswith("grpo is clearly ahead of eggroll (grpo 0.92 [0.90, 0.94] and eggroll 0.54 [")


def test_three_seeds_apart_are_no_claim(tmp_path: Path) -> None:
    write_finals(tmp_path, {"eggroll": [0.5, 0.52, 0.54], "grpo": [0.9, 0.91, 0.92]})
    (task,) = compared(tmp_path).tasks
    assert clear_winner(task) is None
    assert "no evidence yet (equal algorithms would differ as much somewhere on up to 10% of such pages)" in verdict(
        task
    )


def test_overlap_is_no_claim(tmp_path: Path) -> None:
    write_finals(tmp_path, {"eggroll": [0.5, 0.7, 0.9, 0.8, 0.6], "grpo": [0.55, 0.75, 0.95, 0.85, 0.65]})
    (task,) = compared(tmp_path).tasks
    assert "no clear difference between grpo and eggroll" in verdict(task) and clear_winner(task) is None


def test_two_seeds_are_too_few(tmp_path: Path) -> None:
    write_finals(tmp_path, {"eggroll": [0.1, 0.1], "grpo": [0.9, 0.9]})
    comparison = compared(tmp_path)
    assert "too few seeds for a claim" in answer(comparison)[0]
    assert "mean success on held-out instances over 2 seeds" in answer(comparison)[1]
    assert "interquartile" not in answer(comparison)[1]
    assert answer(comparison)[1].endswith(
        "; fewer than 3 are too few for an interval, and on a page of 1 pair a claim on one task takes at least "
        "4 seeds of each."
    )


@pytest.mark.parametrize("contestants", [2, 3, 4, 5])
def test_seeds_that_a_claim_takes(tmp_path: Path, contestants: int) -> None:
    """With as many, runs that do not overlap are a claim; with one fewer they are not, and the report says what it takes."""
    pairs = math.comb(contestants, 2)
    fewest = fewest_for_a_claim(pairs)
    for count in (fewest, fewest - 1):
        scores = {f"algorithm{i}": [0.1 * i + 0.001 * seed for seed in range(count)] for i in range(1, contestants + 1)}
        write_finals(tmp_path / str(count), scores)
        comparison = compared(tmp_path / str(count))
        (task,) = comparison.tasks
        assert (clear_winner(task) == f"algorithm{contestants}") == (count == fewest)
        told = f"on a page of {'1 pair' if pairs == 1 else f'{pairs} pairs'} a claim on one task takes at least {fewest} seeds"
        assert (told in answer(comparison)[1]) == (count < fewest)


def test_validation_instances_are_called_so(tmp_path: Path) -> None:
    write_finals(tmp_path, {"eggroll": [0.5, 0.6, 0.7], "grpo": [0.8, 0.8, 0.9]}, split="validation", passes=True)
    comparison = compared(tmp_path)
    (task,) = comparison.tasks
    assert "measured on 256 validation episodes; decoding: greedy." in setting(task)
    assert "mean success on validation instances over 3 seeds" in answer(comparison)[1]
    assert metric_title("success", [task]) == "Success (validation)"
    for text in (
        picture(comparison, "episodes"),
        markdown(comparison, "curves.svg"),
        html_report(comparison, made=NOW),
    ):
        assert "Success (validation)" in text and "Held-out" not in text


def test_several_tasks_in_one_sentence(tmp_path: Path) -> None:
    high, low = [0.9, 0.91, 0.92, 0.93, 0.94], [0.5, 0.52, 0.54, 0.56, 0.58]
    write_finals(tmp_path, {"eggroll": low, "grpo": high}, env="sort")
    write_finals(tmp_path, {"eggroll": high, "grpo": low}, env="recall")
    write_finals(tmp_path, {"eggroll": low, "grpo": low}, env="hanoi")
    write_finals(tmp_path, {"eggroll": high}, env="alone")
    first, second = answer(compared(tmp_path))
    assert first == (
        "eggroll is clearly ahead on recall; grpo is clearly ahead on sort; on hanoi no algorithm is clearly ahead of "
        "all others; on alone there is one algorithm and nothing to compare it with."
    )
    assert "interquartile mean success on held-out instances over 5 seeds" in second


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"limit": 20_480}, "budgets differ (40,960 episodes / 20,480 episodes)"),
        ({"decoding": "temperature 1"}, "decoding at evaluation differs (greedy / temperature 1)"),
        ({"split": "validation"}, "instances at evaluation differ (test / validation)"),
        ({"before": 0.35}, "runs do not start alike (success of 0.20 to 0.35 before training)"),
    ],
)
def test_unfair_comparisons_make_no_claim(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    write_finals(tmp_path, {"eggroll": [0.5, 0.52, 0.54, 0.56, 0.58]})
    write_finals(tmp_path, {"grpo": [0.9, 0.91, 0.92, 0.93, 0.94]}, **change)
    (task,) = compared(tmp_path).tasks
    assert any(reason in found for found in task.unfair)
    assert clear_winner(task) is None and "not fair" in verdict(task)


def test_unequal_spending_is_unfair(tmp_path: Path) -> None:
    write_finals(tmp_path, {"eggroll": [0.5], "grpo": [0.6]})
    path = tmp_path / "sort-grpo-0" / "summary.json"
    path.write_text(path.read_text().replace('"spent": 40960', '"spent": 50000'))
    assert compared(tmp_path).tasks[0].unfair == (
        "unequal amounts of the budget were spent (40,960 to 50,000 episodes)",
    )


def test_hyperparameters_make_contestants_and_options_make_tasks(tmp_path: Path) -> None:
    for rank in (1, 4):
        for delay in (2, 16):
            for seed in (0, 1):
                write_run(
                    tmp_path / f"{rank}-{delay}-{seed}",
                    env="recall",
                    seed=seed,
                    options={"algorithm": {"rank": rank}, "env": {"delay": delay}},
                )
    tasks = compared(tmp_path).tasks
    assert [task.name for task in tasks] == ["recall (delay 2)", "recall (delay 16)"]
    assert [c.name for c in tasks[0].contestants] == ["eggroll (rank 1)", "eggroll (rank 4)"]
    assert all(len(c.counted) == 2 for task in tasks for c in task.contestants)


def test_models_are_not_mixed(tmp_path: Path) -> None:
    for path in ("small", "large"):
        write_run(tmp_path / path, options={"model": {"path": path}})
    assert [task.name for task in compared(tmp_path).tasks] == ["sort (model.path large)", "sort (model.path small)"]


def test_lost_runs_are_counted_out_loud(tmp_path: Path) -> None:
    write_finals(tmp_path, {"ppo": [0.5, 0.6]})
    write_run(tmp_path / "bad", algorithm="ppo", seed=2, status="failed", reason="ValueError: no")
    write_run(tmp_path / "cut", algorithm="ppo", seed=3, status="interrupted")
    (write_run(tmp_path / "dead", algorithm="ppo", seed=4) / "summary.json").unlink()
    (task,) = compared(tmp_path).tasks
    assert [run.seed for run in task.contestants[0].counted] == [0, 1]
    assert "ppo: 3 of 5 runs not counted (1 failed, 1 interrupted, 1 unfinished)" in task.notes


def test_a_seed_counts_once(tmp_path: Path) -> None:
    write_run(tmp_path / "1", seed=0, final=0.5)
    write_run(tmp_path / "2", seed=0, final=0.7)
    (task,) = compared(tmp_path).tasks
    assert [run.after["success"] for run in task.contestants[0].counted] == [0.7]
    assert any("more than one completed run of seed 0" in note for note in task.notes)


def test_other_differences_are_noted(tmp_path: Path) -> None:
    write_finals(tmp_path, {"eggroll": [0.5, 0.5], "grpo": [0.5]})
    summary = tmp_path / "sort-grpo-0" / "summary.json"
    summary.write_text(summary.read_text().replace("2.13.0", "2.11.0").replace("2 threads", "1 threads"))
    config = tmp_path / "sort-grpo-0" / ".hydra" / "config.yaml"
    config.write_text(config.read_text() + "dtype: bfloat16\n")
    notes = "; ".join(compared(tmp_path).tasks[0].notes)
    for expected in (
        "versions of torch differ (2.13.0 / 2.11.0)",
        "devices differ",
        "setting dtype differs",
        "seeds differ",
    ):
        assert expected in notes


def test_nothing_completed(tmp_path: Path) -> None:
    write_run(tmp_path / "bad", status="failed", reason="ValueError: no")
    comparison = compared(tmp_path)
    assert "nothing to compare yet" in answer(comparison)[0] and "nothing to compare yet" in verdict(
        comparison.tasks[0]
    )


def test_another_class_is_named_by_its_class_and_its_own_options() -> None:
    """And not by paths of modules, nor by the options that it does not have."""
    keys = ["perturbation._target_", "perturbation.rank", "perturbation.vectors", "sigma"]
    low = {"perturbation._target_": "optimizers.perturbations.LowRank", "perturbation.rank": "1", "sigma": "0.1"}
    full = {
        "perturbation._target_": "optimizers.perturbations.FullRank",
        "perturbation.vectors": "full",
        "sigma": "0.2",
    }
    assert _said(low, keys) == ["perturbation LowRank", "rank 1", "sigma 0.1"]
    assert _said(full, keys) == ["perturbation FullRank", "vectors full", "sigma 0.2"]
    assert _said({"sigma": "0.1"}, ["sigma", "population"]) == ["sigma 0.1", "population absent"]


def chosen_by_itself(root: Path) -> Comparison:
    return compare([read_run(folder) for folder in find_runs([root])], metric=None, seed=0)


def test_runs_that_know_no_success_are_compared_by_their_returns(tmp_path: Path) -> None:
    write_finals(tmp_path, {"eggroll": [0.5, 0.52, 0.54], "grpo": [0.9, 0.91, 0.92]}, success=False)
    comparison = chosen_by_itself(tmp_path)
    (task,) = comparison.tasks
    assert comparison.metric == "return" and [len(c.counted) for c in task.contestants] == [3, 3]
    assert all(c.after is not None and c.bands["episodes"].runs == 3 for c in task.contestants)
    assert "(grpo 0.91 [0.90, 0.92] and eggroll 0.52 [0.50, 0.54])" in verdict(task)
    assert "return on held-out instances" in answer(comparison)[1]
    page = html_report(comparison, made=NOW)
    assert "Held-out return" in page and "Held-out return over training" in markdown(comparison, "curves.svg")
    assert "Held-out return" in picture(comparison, "episodes")


def test_beside_tasks_with_success_one_without_is_named_and_not_counted(tmp_path: Path) -> None:
    write_finals(tmp_path, {"eggroll": [0.5]}, env="sort")
    write_finals(tmp_path, {"eggroll": [0.5]}, env="cliff", success=False)
    comparison = chosen_by_itself(tmp_path)
    cliff, sort = comparison.tasks
    assert comparison.metric == "success" and not cliff.contestants[0].counted and sort.contestants[0].counted
    assert any("this task knows no success" in note and "metric=return" in note for note in cliff.notes)
    assert not any("knows no success" in note for note in sort.notes)


def test_faults_of_an_environment_stand_beside_the_scores(tmp_path: Path) -> None:
    write_finals(tmp_path, {"eggroll": [0.5, 0.6]}, faults={"raised": 300, "time_limit": 12})
    write_finals(tmp_path, {"grpo": [0.5, 0.6]})
    comparison = compared(tmp_path)
    (task,) = comparison.tasks
    (note,) = [note for note in task.notes if "faults" in note]
    assert note == (
        "eggroll: faults of the environment ended 624 of 81,920 training episodes and 4 of 8,704 measured episodes "
        "(raised, time limit)"
    )
    assert note in html_report(comparison, made=NOW)
    assert note.replace("_", r"\_") in markdown(comparison, "curves.svg")
    rows = list(csv.DictReader(io.StringIO(results_csv(comparison))))
    assert [(row["algorithm"], row["faults"], row["evaluation_faults"]) for row in rows] == [
        *[("eggroll", "312", "2")] * 2,
        *[("grpo", "0", "0")] * 2,
    ]

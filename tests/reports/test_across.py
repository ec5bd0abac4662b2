"""Several tasks together, swept options and tuning: who takes part, what is computed, what the page and files say."""

import csv
import io
import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from evotext.run_folder.find import find_runs
from evotext.run_folder.reader import read_run
from reports.comparison import Comparison, compare
from reports.figures import spread
from reports.head_to_head.plan import TUNING_SEED
from reports.html_parts import matrix
from reports.html_report import html_report
from reports.markdown import markdown
from reports.picture import picture
from reports.statistics import Estimate, interquartile_mean, probability_of_improvement
from reports.tables import results_csv
from reports.tasks import Duel
from reports.verdicts import answer
from tests.reports.run_folders import write_run, write_study
from tests.reports.test_outputs import Drawing, Page


def compared(root: Path, metric: str = "success") -> Comparison:
    runs = [read_run(folder) for folder in find_runs([root])]
    return compare(runs, metric="return" if metric == "return" else "success", seed=0)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return compared(write_study(tmp_path_factory.mktemp("study"), seeds=6))


def test_figures_over_tasks_are_of_the_tasks_outside_the_sweep(study: Comparison) -> None:
    overall = study.overall
    assert overall is not None and overall.tasks == ("countdown", "sort")
    scores = {
        name: {
            task.name: [run.after["success"] for c in task.contestants if c.name == name for run in c.counted]
            for task in study.tasks
            if task.name in overall.tasks
        }
        for name in ("eggroll", "grpo")
    }
    for profile in overall.profiles:
        assert (
            profile.score.value == pytest.approx(interquartile_mean(scores[profile.name])) and profile.score.runs == 12
        )
        pooled = np.array([score for runs in scores[profile.name].values() for score in runs])
        half = int(np.searchsorted(profile.above.cost, 0.9))
        assert profile.above.score[half] == pytest.approx(float((pooled > profile.above.cost[half]).mean()))
    (duel,) = overall.duels
    expected = probability_of_improvement(scores[duel.first], scores[duel.second], seed=0)
    assert duel.improvement == expected
    assert overall.profiles[0].name == duel.first
    assert "the values of delay are shown as a sweep" in overall.left_out[0]


def test_a_swept_option_is_a_curve_of_final_scores(study: Comparison) -> None:
    (sweep,) = study.sweeps
    assert (sweep.name, sweep.option, sweep.values) == ("recall", "delay", (1.0, 4.0, 16.0))
    assert [task.name for task in sweep.tasks] == ["recall (delay 1)", "recall (delay 4)", "recall (delay 16)"]
    for name, line in sweep.lines.items():
        finals = [c.after for task in sweep.tasks for c in task.contestants if c.name == name]
        assert line.score.tolist() == [after.value for after in finals if after]
        assert line.low is not None and line.low.tolist() == [a.interval[0] for a in finals if a and a.interval]
    first, basis = answer(study)
    assert "as delay of recall rises from 1 to 16, eggroll goes from" in first
    assert "(eggroll is clearly ahead of all others at 4 and 16)" in first and "over 6 seeds" in basis
    assert first.startswith("Over 2 tasks together, ") and first.count(". ") == 0, "one sentence"


def test_two_values_or_two_options_are_no_sweep(tmp_path: Path) -> None:
    for i, options in enumerate([{"delay": 1}, {"delay": 2}, {"delay": 3, "length": 4}]):
        write_run(tmp_path / str(i), env="recall", options={"env": dict(options)})
    assert compared(tmp_path).sweeps == ()
    for i, word in enumerate(("easy", "middling", "hard")):
        write_run(tmp_path / f"word-{i}", env="guess", options={"env": {"level": word}})
    assert compared(tmp_path).sweeps == ()


def test_who_lacks_runs_is_left_out_by_name_and_returns_are_not_averaged(tmp_path: Path) -> None:
    write_study(tmp_path, delays=(), trials=0)
    for seed in range(2):
        write_run(tmp_path / f"few-{seed}", algorithm="ppo", env="sort", seed=seed)
    overall = compared(tmp_path).overall
    assert overall is not None and {p.name for p in overall.profiles} == {"eggroll", "grpo"}
    assert overall.left_out == ("ppo: fewer than 3 counted runs on countdown, sort",)
    assert compared(tmp_path, "return").overall is None


def test_an_unfair_task_is_left_out(tmp_path: Path) -> None:
    write_study(tmp_path, envs=("sort", "countdown", "guess"), delays=(), trials=0)
    write_run(tmp_path / "other", env="guess", seed=7, decoding="temperature 1")
    overall = compared(tmp_path).overall
    assert overall is not None and overall.tasks == ("countdown", "sort")
    assert overall.left_out == ("guess: not a fair comparison",)


def test_trials_of_tuning_are_told_apart(study: Comparison) -> None:
    assert len(study.tunings) == 2 and all(run.phase != "tuning" for run in study.runs)
    tuning = study.tunings[0]
    assert (tuning.algorithm, tuning.env) == ("eggroll", "sort")
    assert {tuple(trial.values) for trial in tuning.trials} == {("learning_rate",)}
    assert {trial.values["learning_rate"] for trial in tuning.trials} == {"0.01", "0.03", "0.09"}
    scores = [trial.score for trial in tuning.trials]
    assert scores == sorted(scores, reverse=True)
    assert tuning.cost["episodes"] == 3 * 40_960
    assert all(run.seed != 1000 for task in study.tasks for c in task.contestants for run in c.counted)


def test_the_trial_that_was_reported_is_marked(tmp_path: Path) -> None:
    for rank in (1, 4):
        options: dict[str, dict[str, object]] = {"algorithm": {"rank": rank}}
        write_run(tmp_path / f"trial-{rank}", options=options, phase="tuning")
        write_run(tmp_path / f"lost-{rank}", options=options, phase="tuning", status="failed", reason="no")
    write_run(tmp_path / "reported", options={"algorithm": {"rank": 4}})
    (tuning,) = compared(tmp_path).tunings
    assert {trial.values["rank"] for trial in tuning.trials if trial.reported} == {"4"}
    assert [trial.run.status for trial in tuning.trials][2:] == ["failed", "failed"]


def test_unequal_or_shared_tuning_is_unfair(tmp_path: Path) -> None:
    for algorithm, trials in (("eggroll", 3), ("grpo", 2)):
        for seed in range(3):
            write_run(tmp_path / f"{algorithm}-{seed}", algorithm=algorithm, seed=seed)
        for trial in range(trials):
            write_run(tmp_path / f"trial-{algorithm}-{trial}", algorithm=algorithm, seed=1000, phase="tuning")
    (task,) = compared(tmp_path).tasks
    assert task.unfair == ("algorithms were tuned by unequal numbers of trials (eggroll: 3, grpo: 2)",)
    write_run(tmp_path / "trial-grpo-2", algorithm="grpo", seed=2, phase="tuning")
    (task,) = compared(tmp_path).tasks
    assert task.unfair == ("seeds of tuning are reported too (2)",)


def test_page_and_files_say_it_all(study: Comparison) -> None:
    page = Page(html_report(study, made=datetime(2026, 1, 2)))
    for expected in ("All tasks together", "recall against delay", "Probability of improvement: that a run of the row"):
        assert expected in page.words
    for expected in ("Performance profile", "eggroll on sort: 3 trials, episodes 123k", "pass@4", "rank: 1", "4.5 s"):
        assert expected in page.words, expected
    plots = [a["id"] for _, a in page.tags if a.get("class") == "plot"]
    assert plots[:2] == ["plot-overall", "plot-sweep-1"] and len(plots) == 2 + len(study.tasks)
    report = markdown(study, "curves.svg")
    assert "## Over all tasks" in report and "## recall against delay" in report and "| delay | 1 | 4 | 16 |" in report
    assert (
        "## Tuning of eggroll on sort" in report and "| Sampled at temperature 1 | pass@1 | pass@2 | pass@4 |" in report
    )
    for block in re.findall(r"(?:^\|.*\n)+", report, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block
    rows = list(csv.DictReader(io.StringIO(results_csv(study))))
    assert [row["phase"] for row in rows].count("tuning") == 6 and len(rows) == 2 * 6 * 5 + 6
    assert {float(row["evaluation_seconds"]) for row in rows} == {4.5}
    sampled = [row for row in rows if row["pass_at_2"]]
    assert len(sampled) == 24
    assert all(float(r["pass_at_2"]) == pytest.approx(1 - (1 - float(r["success_after"])) ** 2) for r in sampled)


def test_picture_has_a_panel_a_task_and_a_sweep(study: Comparison) -> None:
    drawn = Drawing(picture(study, "episodes"))
    for expected in ("countdown", "sort", "recall, at the end", "delay", "16"):
        assert expected in drawn.texts, expected
    assert not any("recall (delay" in text for text in drawn.texts)
    assert len(drawn.named("curve-")) == 3 * 2
    for name, points in drawn.named("curve-").items():
        left = 0 if name.split("-")[1] in ("0", "2") else drawn.width / 2
        assert all(left <= x <= left + drawn.width / 2 and 0 <= y <= drawn.height for x, y in points)
        assert [x for x, _ in points] == sorted(x for x, _ in points)
    spread_evenly = [x for x, _ in drawn.named("curve-")["curve-2-0"]]  # 1, 4, 16 by their logarithm
    assert spread_evenly[1] - spread_evenly[0] == pytest.approx(spread_evenly[2] - spread_evenly[1], abs=0.01)


def test_values_that_double_are_spread_by_their_logarithm() -> None:
    assert spread([1, 2, 4, 8]) and not spread([1, 2, 3, 4]) and not spread([0, 8, 64])


def test_matrix_is_a_duel_from_both_sides() -> None:
    estimate = Estimate(value=0.75, interval=(0.5, 0.875), runs=8)
    duel = Duel(first="a", second="b", improvement=estimate, p_value=0.5, apart=False)
    (_, row_a), (_, row_b) = matrix(["a", "b"], [duel])
    assert row_a[0] is None and row_b[1] is None
    assert row_a[1] == {"value": "0.75", "interval": "[0.50, 0.88]", "share": "0.50", "side": "over"}
    assert row_b[0] == {"value": "0.25", "interval": "[0.12, 0.50]", "share": "0.50", "side": "under"}
    assert matrix(["a"], []) == []


def test_a_seed_makes_no_trial(tmp_path: Path) -> None:
    """A reported run may have any seed, even that of a head-to-head's trials."""
    for seed in (0, 1, TUNING_SEED):
        write_run(tmp_path / f"seed-{seed}", seed=seed)
    write_run(tmp_path / "trial", seed=TUNING_SEED, phase="tuning")
    study = compared(tmp_path)
    assert len(study.runs) == 3 and [len(tuning.trials) for tuning in study.tunings] == [1]

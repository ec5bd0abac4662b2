"""Equal trials, no meeting of tuning and reporting, finished jobs are not run again, failures stay alone."""

import io
import json
import re
import subprocess
import sys
from collections import Counter
from itertools import zip_longest
from pathlib import Path

import pytest
from evotext.commands.cores import usable_cores
from omegaconf import OmegaConf
from rich.console import Console

from evotext.cli.composing import compose
from evotext.keys.instances import held_out_instances, train_instances, validation_instances
from evotext.run_folder import names
from evotext.run_folder.cost import AXES
from evotext.run_folder.reader import read_run
from evotext.run_folder.schema import BudgetRecord, EvaluationRecord, Status, Summary
from evotext.run_folder.writer import JsonLines, write_summary
from reports.head_to_head.execute import execute, run_in_process, time_left
from reports.head_to_head.outcome import best, record, trials
from reports.head_to_head.plan import TUNING_SEED, Job, reported_jobs, settings, tuning_jobs

ROOT = Path(__file__).resolve().parents[2]
SPACE = {"algorithm.lr": [0.1, 0.2, 0.3], "algorithm.sigma": [1, 2]}
ALGORITHMS, ENVS = ("eggroll", "grpo"), ("sort", "recall")
QUIET = Console(quiet=True)


def _finish(job: Job, success: float, spent: float = 10, status: Status = "completed") -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    summary = Summary(
        status=status,
        eval=EvaluationRecord(success_before=0.2, success_after=success, split="validation"),
        cost={"episodes": 10, "generated_tokens": 60, "updates": 2, "flops": 1e9, "seconds": 3.0},
        budget=BudgetRecord(unit="episodes", limit=100, spent=spent),
    )
    write_summary(job.folder, summary)
    (job.folder / names.WORDS).write_text(json.dumps(job.words))


def _tuning(out: Path, count: int = 3) -> list[Job]:
    return tuning_jobs(ALGORITHMS, ENVS, dict.fromkeys(ALGORITHMS, SPACE), count, ["budget=quick"], out)


def test_the_shipped_setting_is_tried_first_and_no_setting_twice() -> None:
    found = settings(SPACE, "eggroll", 5)
    assert found[0] == ()
    assert len(set(found)) == 5
    assert found == settings(SPACE, "eggroll", 5)
    assert settings(SPACE, "eggroll", 3) == found[:3]  # more trials only add to fewer
    assert len(settings(SPACE, "eggroll", 100)) == 7  # the grid has no more
    assert settings({}, "eggroll", 3) == [()]
    shipped = {"algorithm.lr": 0.2, "algorithm.sigma": 1}
    others = settings(SPACE, "eggroll", 100, shipped)
    assert len(others) == 6 and ("algorithm.lr=0.2", "algorithm.sigma=1") not in others


def test_every_algorithm_has_as_many_trials_on_every_task(tmp_path: Path) -> None:
    jobs = _tuning(tmp_path)
    assert Counter((job.algorithm, job.env) for job in jobs) == {(a, e): 3 for a in ALGORITHMS for e in ENVS}
    assert len({job.folder for job in jobs}) == len(jobs)
    assert _tuning(tmp_path, count=1) == []


def test_searches_share_no_seed_no_folder_and_few_points(tmp_path: Path) -> None:
    """The first is what a single search is; each begins with the shipped setting."""
    first, second = (
        tuning_jobs(ALGORITHMS, ENVS, dict.fromkeys(ALGORITHMS, SPACE), 3, ["budget=quick"], tmp_path, draw=draw)
        for draw in range(2)
    )
    assert first == _tuning(tmp_path)
    assert {job.folder for job in first}.isdisjoint(job.folder for job in second)
    assert {job.folder.parent for job in first}.isdisjoint(job.folder.parent for job in second), "a pruner's neighbours"
    seeds = [{word for job in jobs for word in job.words if word.startswith("seed=")} for jobs in (first, second)]
    assert seeds == [{f"seed={TUNING_SEED}"}, {f"seed={TUNING_SEED + 1}"}]
    assert all("draw=1" in job.words for job in second) and not any("draw=1" in job.words for job in first)
    points = [[job.setting for job in jobs if (job.algorithm, job.env) == ("grpo", "sort")] for jobs in (first, second)]
    assert points[0][0] == points[1][0] == () and points[0] != points[1]
    chosen: list[dict[tuple[str, str], tuple[str, ...]]] = [
        {("grpo", "sort"): (), ("ppo", "sort"): ()},
        {("grpo", "sort"): ("lr=1",), ("ppo", "sort"): ()},
    ]
    reported = reported_jobs(chosen[0], (0, 1), [], tmp_path)
    more = reported_jobs(chosen[1], (0, 1), [], tmp_path, draw=1, known=reported)
    assert {job.folder for job in reported}.isdisjoint(job.folder for job in more)
    assert [job.algorithm for job in more] == ["grpo"] * 2, "a setting that is chosen again is not run again"


def test_tuning_and_reporting_never_meet(tmp_path: Path) -> None:
    """They share neither seeds nor measured instances."""
    for job in _tuning(tmp_path):
        assert {f"seed={TUNING_SEED}", "phase=tuning", "evaluation.split=validation"} <= set(job.words)
    for job in reported_jobs({("eggroll", "sort"): ("algorithm.lr=0.1",)}, (0, 1), ["budget=quick"], tmp_path):
        assert not any(word.startswith(("evaluation.split", "phase")) for word in job.words)
        assert "algorithm.lr=0.1" in job.words
    measured = set(validation_instances(1000))
    assert measured.isdisjoint(held_out_instances(1000))
    assert all(measured.isdisjoint(train_instances(seed, g, 100)) for seed in (0, TUNING_SEED) for g in range(20))


def test_the_best_setting_is_chosen_and_the_earlier_of_equals(tmp_path: Path) -> None:
    jobs = _tuning(tmp_path)
    for job in jobs:
        if (job.algorithm, job.env) != ("grpo", "recall"):
            trial = int(job.folder.name[-1])
            _finish(job, [0.5, 0.9, 0.7][trial] if job.env == "sort" else 0.4)
    tried = settings(SPACE, "eggroll", 3)
    assert best(jobs) == {
        ("eggroll", "sort"): tried[1],
        ("grpo", "sort"): settings(SPACE, "grpo", 3)[1],
        ("eggroll", "recall"): (),
    }
    rows = trials(jobs)
    assert len(rows) == len(jobs)
    assert [row["seconds"] for row in rows if (row["algorithm"], row["env"]) == ("grpo", "recall")] == [None] * 3


def test_a_trial_is_chosen_by_the_figure_that_is_reported(tmp_path: Path) -> None:
    """A large generation that ends far beyond the budget wins by its last measurement, not by that at the budget."""
    jobs = [job for job in _tuning(tmp_path) if (job.algorithm, job.env) == ("eggroll", "sort")]
    curves = [[(0, 0.2), (90, 0.5), (110, 0.6)], [(0, 0.2), (60, 0.3), (300, 0.9)], [(0, 0.2), (100, 0.4)]]
    for job, curve in zip(jobs, curves, strict=True):
        _finish(job, curve[-1][1], spent=curve[-1][0])
        lines = JsonLines(job.folder)
        for i, (cost, score) in enumerate(curve):
            axes: dict[str, float] = dict.fromkeys(AXES, cost)
            lines.log({"kind": "eval", "generation": i, **axes, "eval/success": score, "eval/return": score})
        lines.close()
    reported = [read_run(job.folder).after["success"] for job in jobs]
    assert reported == pytest.approx([0.55, 0.4, 0.4])
    assert best(jobs) == {("eggroll", "sort"): jobs[0].setting}
    assert [row["success_after"] for row in trials(jobs)] == pytest.approx(reported)


def test_a_trial_that_was_pruned_is_neither_chosen_nor_run_again(tmp_path: Path) -> None:
    jobs = [job for job in _tuning(tmp_path) if (job.algorithm, job.env) == ("eggroll", "sort")]
    for job, success, status in zip(jobs, (0.5, 0.9, 0.4), ("completed", "pruned", "completed"), strict=True):
        _finish(job, success, status=status)
    assert best(jobs) == {("eggroll", "sort"): ()}
    assert [(row["status"], row["episodes"]) for row in trials(jobs)] == [
        ("completed", 10),
        ("pruned", 10),
        ("completed", 10),
    ]
    assert execute(jobs, lambda job: f"ran {job.title}", at_once=1, title="tuning", console=QUIET) == []


def test_runs_share_the_cores_that_the_command_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {1, 4, 5}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert usable_cores() == 3


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_a_run_that_did_not_end_well_is_run_again(status: Status, tmp_path: Path) -> None:
    job = _tuning(tmp_path)[0]
    _finish(job, 0.5, status=status)
    assert record(job) is None
    assert best([job]) == {}


def test_finished_jobs_are_not_run_again_but_changed_ones_are(tmp_path: Path) -> None:
    jobs = _tuning(tmp_path)
    _finish(jobs[0], 0.5)
    _finish(jobs[1], 0.5)
    (jobs[1].folder / names.WORDS).write_text(json.dumps(["budget=demo"]))  # of another plan
    ran: list[Job] = []

    def run(job: Job) -> str | None:
        ran.append(job)
        _finish(job, 0.5)
        return None

    assert execute(jobs, run, at_once=2, title="tuning", console=QUIET) == []
    assert {job.folder for job in ran} == {job.folder for job in jobs[1:]}
    assert execute(jobs, run, at_once=2, title="tuning", console=QUIET) == []
    assert len(ran) == len(jobs) - 1


def test_each_line_says_how_long_the_rest_takes(tmp_path: Path) -> None:
    jobs, out = _tuning(tmp_path)[:3], io.StringIO()

    def run(job: Job) -> str | None:
        _finish(job, 0.5)
        return None

    execute(jobs, run, at_once=1, title="tuning", console=Console(file=out, width=200))
    first, second, last = out.getvalue().splitlines()
    assert re.search(r"  1 of 3, about [\d.]+ s left$", first) and re.search(r"  2 of 3, about [\d.]+ s left$", second)
    assert last.startswith("done: ") and "left" not in last
    assert time_left(100.0, 4, 10) == "about 2 min 30 s left" and time_left(100.0, 10, 10) == ""


def test_a_failure_is_named_and_leaves_the_others_alone(tmp_path: Path) -> None:
    jobs = _tuning(tmp_path)

    def run(job: Job) -> str | None:
        if job is jobs[2]:
            return "error: no such thing"
        _finish(job, 0.5)
        return None

    (failure,) = execute(jobs, run, at_once=2, title="tuning", console=QUIET)
    assert (failure.job, failure.reason) == (jobs[2], "error: no such thing")
    assert sum(record(job) is None for job in jobs) == 1


def test_a_process_that_fails_gives_its_last_line_and_leaves_no_record(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    job = Job(algorithm="a", env="e", folder=tmp_path / "run", words=("one=1",))
    script.write_text("import sys; print('working'); sys.exit('error: disk full')")
    assert run_in_process(job, [sys.executable, str(script)], threads=1) == "error: disk full"
    assert record(job) is None
    script.write_text(
        "import sys, pathlib; pathlib.Path(sys.argv[3].split('=')[1], 'words').write_text(str(sys.argv[1:]))"
    )
    assert run_in_process(job, [sys.executable, str(script)], threads=2) is None
    assert (job.folder / "words").read_text() == str(["one=1", "threads=2", f"hydra.run.dir={job.folder}"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trials=none"], "trials: expected an integer, got 'none'"),
        (["seed=1000004"], "seed: expected other seeds than those of the trials, 1000003 and 1000004"),
        (["study=tenht"], "published or tenth, got 'tenht'; did you mean tenth?"),
        (["seed=0,x"], "seed: expected an integer, got 'x'"),
        (["--jobs"], "expected key=value, got '--jobs'"),
        (["threads=2"], "threads: expected to be left out"),
        (["algorithm=egroll"], "algorithm: expected best_of_n"),
        (["out="], "out: expected a value"),
        (["budget=flopz"], "got 'flopz'; did you mean flops?"),
        (["env.delay=2"], "env: expected a known key, got 'delay'"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    script = ROOT / "scripts" / "head_to_head.py"
    done = subprocess.run([sys.executable, script, f"out={tmp_path}", *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr


@pytest.mark.parametrize("trials", ["1", "2"])
def test_a_mistake_is_found_before_any_run_with_and_without_tuning(trials: str, tmp_path: Path) -> None:
    script = ROOT / "scripts" / "head_to_head.py"
    words = [f"out={tmp_path}", f"trials={trials}", "env.delay=2", "env=sort"]
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "") and not list(tmp_path.iterdir())


def test_help_wherever_it_stands() -> None:
    script = ROOT / "scripts" / "head_to_head.py"
    done = subprocess.run([sys.executable, script, "trials=2", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("Tune every algorithm")


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        (
            {"unit": "seconds", "limit": 60},
            "54 runs: 24 trials of tuning, 30 reported; "
            "at 60 s of training each, at least 27 minutes unless some are done already",
        ),
        ({"unit": "episodes", "limit": 100}, "54 runs: 24 trials of tuning, 30 reported"),
    ],
)
def test_what_is_to_come_is_told_first(budget: dict[str, object], told: str) -> None:
    from evotext.commands.head_to_head import announcement

    assert announcement(24, 30, 2, OmegaConf.create(budget)) == told


def test_a_study_gives_defaults_that_words_change() -> None:
    from evotext.commands.head_to_head import read

    everything, words = read(["study=everything"])
    assert (everything.trials, everything.draws, len(everything.env)) == (12, 2, 8)
    assert "budget.limit=6e11" in words and not any(word.startswith("study") for word in words)
    tenth, words = read(["study=tenth", "env=sort", "budget.limit=1e9"])
    assert tenth.env == ["sort"] and [word for word in words if "limit" in word] == ["budget.limit=1e9"]
    runs = {
        name: len(told.algorithm) * len(told.env) * told.draws * (told.trials + len(told.seed))
        for name, told in (("everything", everything), ("tenth", read(["study=tenth"])[0]))
    }
    assert runs["tenth"] <= runs["everything"] / 10


@pytest.mark.parametrize("study", sorted(file.stem for file in (ROOT / "conf" / "study").glob("*.yaml")))
def test_every_study_composes(study: str) -> None:
    from evotext.commands.head_to_head import read

    told, words = read([f"study={study}"])
    for algorithm in told.algorithm:
        for env in told.env[: 1 if algorithm != told.algorithm[0] else None]:
            compose("config", [f"algorithm={algorithm}", f"env={env}", *words])


@pytest.mark.parametrize("words", [["experiment=head_to_head"], ["-m", "env=[sort,recall]", "experiment=head_to_head"]])
def test_train_knows_the_experiment(words: list[str], tmp_path: Path) -> None:
    script = ROOT / "scripts" / "train.py"
    words = [*words, f"out={tmp_path}", "seed=0,1", "jobs=none"]
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: jobs: expected an integer, got 'none'\n")


@pytest.mark.parametrize("algorithm", sorted(file.stem for file in (ROOT / "conf" / "algorithm").glob("*.yaml")))
def test_every_algorithm_has_values_to_try_of_keys_that_it_takes(algorithm: str) -> None:
    from evotext.commands.head_to_head import space_of

    space = space_of(algorithm, compose("config", [f"algorithm={algorithm}"]))
    for round_of_values in zip_longest(*([f"{key}={value}" for value in values] for key, values in space.items())):
        compose("config", [f"algorithm={algorithm}", *filter(None, round_of_values)])


@pytest.mark.slow
def test_from_tuning_to_report(tmp_path: Path) -> None:
    words = [
        "algorithm=eggroll,grpo",
        "env=sort",
        "seed=0",
        "trials=2",
        "draws=1",
        "jobs=2",
        "budget=episodes",  # a budget in updates has no end where nothing gives a signal
        "budget.limit=64",
        "algorithm.prompts=2",
        "tracker=none",
    ]
    words += ["model.hidden_size=32", "model.intermediate_size=48", "model.layers=2", "model.heads=2", "model.steps=20"]
    words += ["evaluation.episodes=8", "evaluation.points=1", f"out={tmp_path}"]
    script = ROOT / "scripts" / "head_to_head.py"
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "tuning.json").read_text())
    assert done.stdout.splitlines()[0] == "6 runs: 4 trials of tuning, 2 reported"
    pruned = {file.relative_to(tmp_path).parts[0]: "pruner" in file.read_text() for file in tmp_path.rglob(names.WORDS)}
    assert pruned == {"tuning": True, "reported": False}, "reported runs go to their end"
    assert len(rows) == 4 and all(row["episodes"] > 0 for row in rows)
    assert (tmp_path / "report" / "report.html").is_file()
    told = (tmp_path / "report" / "report.md").read_text()
    assert "## Tuning of eggroll on sort" in told and "2 trials" in told, "the report shows what was tried"
    again = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
    assert "done:" in done.stdout and "done:" not in again.stdout
    assert again.returncode == 0

"""Every mistake is one line that helps, with the exit status that was promised."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evotext.cli.errors import placed
from evotext.cli.jobs import reader_is_gone
from tests.command_line_app import CONFIGURATION, HERE, App

TRAIN = Path(__file__).parents[1] / "scripts" / "train.py"


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        # names
        ("algorithm=smal", "algorithm: expected small or smaller, got 'smal'; did you mean small or smaller?"),
        ("algorithm=zzz", "expected small or smaller, got 'zzz'; groups of your own need --config-dir DIR"),
        ("search=small", "configuration: expected a known key, got 'search'; known: algorithm"),
        ("algorithm=", "algorithm: expected small or smaller, got ''"),
        ("algorithm=null", "algorithm: expected the name of a configuration, got null"),
        ("algorithm=3", "algorithm: expected the name of a configuration, got 3"),
        ("algorithm=../budget/short", "algorithm: expected the name of a configuration, got '../budget/short'"),
        ("algoritm=small", "expected a known key, got 'algoritm'; did you mean algorithm?"),
        ("sede=1", "expected a known key, got 'sede'; did you mean seed?"),
        ("repla=runs", "expected a known key, got 'repla'"),
        ("+foo=1", "expected a known key, got 'foo'; known: algorithm, allow_custom_targets, budget, debug"),
        ("+experiment=foo", "experiment: expected the name of a configuration, got 'foo'"),
        ("algorithm.populaton=64", "algorithm: expected a known key, got 'populaton'; did you mean population?"),
        ("+algorithm.populaton=64", "algorithm: expected a known key, got 'populaton'; did you mean population?"),
        ("+algorithm.part.rnk=2", "algorithm.part: expected a known key, got 'rnk'; did you mean rank?"),
        ("+algorithm.optimizer.lrr=2", "algorithm.optimizer: expected a known key, got 'lrr'; did you mean lr?"),
        ("seed.x=1", "seed: expected a known key, got 'x'"),
        ("hydra.foo=1", "hydra: expected a known key, got 'foo'"),
        ("hydra/launcher=jobli", "hydra/launcher: expected basic"),
        ("--config-name=confi", "expected a configuration that is there, got 'confi'"),
        # what is not there
        ("algorithm=smaller", "algorithm.rank: expected a value, got none; add algorithm.rank=..."),
        ("~algorithm.sigma", "algorithm.sigma: expected a value, got none; add algorithm.sigma=..."),
        ("~algorithm", "algorithm: expected a choice, got none"),
        ("~seed", "seed: expected a value, got none"),
        ("~nope", "configuration: expected a known key, got 'nope'; known: algorithm"),
        ("seed=${nope}", "seed: Interpolation key 'nope' not found"),
        ("seed=${seed}", "seed: "),
        ("seed=${oc.env:NO_SUCH_VARIABLE}", "NO_SUCH_VARIABLE"),
        ("--config-dir=/no/such", "--config-dir: expected a folder, got '/no/such'"),
        ("hydra.searchpath=[/no/such]", "hydra.searchpath: expected folders with configurations, got '/no/such'"),
        ("replay=/no/such", "replay: expected the folder of a run, got '/no/such'"),
        # syntax
        ("seed", "expected key=value, got 'seed'"),
        ("=1", "expected key=value, got '=1'"),
        ("x y", "expected key=value, got 'x y'"),
        ("seed=[1", "expected key=value, got 'seed=[1'"),
        ("--sed", "expected key=value or a flag, got '--sed'"),
        ("--multirn", "did you mean --multirun?"),
        ("--seed=1", "expected key=value, got '--seed=1'; leave the dashes out: seed=1"),
        ("--experimental-rerun=x.pickle", "expected replay=RUN_DIR"),
        ("--config-path=x", "expected --config-dir"),
        ("seed=1,2", "seed: expected one value, got '1,2'; add -m"),
        ("seed=range(1,3)", "seed: expected one value, got 'range(1,3)'; add -m"),
        ("+seed=1", "An item is already at 'seed'"),
        ("+algorithm=smaller", "algorithm: expected one choice, got several; leave the + out"),
        ("hydra.mode=FOO", "hydra.mode: Invalid value 'FOO', expected one of [RUN, MULTIRUN]"),
        ("hydra.verbose=2", "Hydra does not accept this command line (AssertionError)"),
        # values
        ("seed=", "seed: expected an integer, got ''"),
        ("seed=abc", "seed: expected an integer, got 'abc'"),
        ("seed=1.5", "seed: expected an integer, got 1.5"),
        ("seed=true", "seed: expected an integer, got true"),
        ("seed=-1", "seed: expected a number of at least 0, got -1"),
        ("seed=9223372036854775808", "seed: expected a number less than"),
        ("threads=0", "threads: expected a number of at least 1, got 0"),
        ("threads=100000", "threads: expected a number of at most 1024, got 100000"),
        ("debug=3", "debug: expected true or false, got 3"),
        ("budget.unit=second", "got 'second'; did you mean seconds?"),
        ("budget.limit=0", "budget.limit: expected a number greater than 0, got 0"),
        ("budget.limit=nan", "budget.limit: expected a finite number, got nan"),
        ("algorithm.population=abc", "algorithm.population: expected an integer, got 'abc'"),
        ("algorithm.population=null", "algorithm.population: expected an integer, got null"),
        ("algorithm.population=1", "algorithm.population: expected a number of at least 2, got 1"),
        ("algorithm.population=7", "algorithm.population: expected an even number, got 7"),
        ("algorithm.part.rank=0", "algorithm.part.rank: expected a number of at least 1, got 0"),
        ("algorithm.part.rank=13", "algorithm.part.rank: expected no 13"),
        ("algorithm.part.rank=14", "algorithm.part: neither 14"),
        ("algorithm.part=3", "algorithm.part: expected a `_target_` that makes a Part, got 3"),
        ("algorithm.optimizer=3", "algorithm.optimizer: expected a `_target_` to call, got 3"),
        ("budget={limit:3,unit:4}", "budget.unit: expected 'episodes'"),
        # targets
        (f"algorithm._target_={HERE}.Smal", "expected something importable, got 'tests.command_line_app.Smal'"),
        ("algorithm._target_=optimizers.fitness_shaping.ZScore", "did you mean z_score?"),
        ("algorithm._target_=no.such", "expected something importable, got 'no.such': No module named 'no'"),
        ("algorithm._target_=evotext.runner", "expected a class or function, got 'evotext.runner'"),
        ("algorithm._target_=3", "algorithm._target_: expected a class or function"),
        ("algorithm.optimizer._target_=torch.optim.Adm", "did you mean Adam"),
        # text that would break a line or a terminal
        ("seed=\x00\x1b[31m", "expected key=value, got 'seed=\\x00\\x1b[31m'"),
        ("seed='a\nb\u2028c'", "seed: expected an integer, got 'a\\nb\\u2028c'"),
        ("algorithm=" + 200 * "a", "algorithm: expected small or smaller, got 'aaaa"),
        ("seed=" + 3000 * "[", "expected key=value, got 'seed=[[["),
    ],
)
def test_one_line_for_each_mistake(app: App, words: str, told: str) -> None:
    outcome = app(words)
    assert told in outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    assert outcome.err.startswith("error: ")
    assert len(outcome.err) < 700
    assert (outcome.status, outcome.out, app.seen) == (2, "", [])
    assert not app.runs, "a run that never was leaves nothing behind"


def test_success(app: App) -> None:
    outcome = app("seed=3", "algorithm.population=4", "-m", "algorithm.part.rank=5")
    assert (outcome.status, outcome.err) == (0, "")
    config, algorithm, budget = app.seen[0]
    assert (config.seed, algorithm.part.rank, budget.limit) == (3, 5, 3)


def test_debug_shows_the_traceback(app: App) -> None:
    outcome = app("algorithm.population=7", "debug=true")
    assert outcome.status == 2
    assert "Traceback" in outcome.err
    assert outcome.err.splitlines()[-1] == "error: algorithm.population: expected an even number, got 7"


def test_help_and_cfg(app: App) -> None:
    assert "algorithm: small, smaller" in app("--help").out
    shown = app("--cfg", "job", "seed=4")
    assert (shown.status, shown.err) == (0, "")
    assert "seed: 4" in shown.out


def test_other_failures_leave_their_traceback_in_the_run(app: App) -> None:
    outcome = app("seed=13")
    report = app.runs[0] / "error.txt"
    assert outcome.status == 1
    assert outcome.err == f"error: RuntimeError: out of luck (traceback in {report})\n"
    assert "Traceback" in report.read_text()


def test_a_reader_that_is_gone_is_no_fault_of_the_run(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train.py ... | head -1`: it ends with status 1, and its folder is that of a run that ended well."""
    monkeypatch.setattr("evotext.cli.jobs.reader_is_gone", lambda: True)
    outcome = app("seed=32")
    assert (outcome.status, outcome.err) == (1, "")
    assert not list(app.folder.rglob("error.txt"))


def test_another_broken_pipe_is_a_failure(app: App) -> None:
    outcome = app("seed=32")
    assert outcome.status == 1 and outcome.err.startswith("error: BrokenPipeError")


def test_a_reader_is_there_until_it_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as output:
        monkeypatch.setattr("sys.stdout", output)
        assert not reader_is_gone()
        os.close(reading)
        assert reader_is_gone()
    monkeypatch.undo()


def test_interrupted(app: App) -> None:
    outcome = app("seed=130")
    assert (outcome.status, outcome.err) == (130, "")


def test_multirun_goes_on_after_a_failure(app: App) -> None:
    outcome = app("-m", "seed=13,x,2")
    assert [config.seed for config, *_ in app.seen] == [2]
    assert outcome.status == 1
    first, second = outcome.err.splitlines()
    assert first.startswith("error: job 0 (seed=13): RuntimeError: out of luck (traceback in ")
    assert second == "error: job 1 (seed=x): seed: expected an integer, got 'x'"
    assert outcome.out.splitlines() == [line.replace("error:", "failed:") for line in (first, second)]
    assert (app.folder / "sweep" / "1" / "error.txt").read_text() == "seed: expected an integer, got 'x'\n"


def test_a_mistake_in_a_sweep_leaves_no_note_in_a_folder_with_a_run(app: App) -> None:
    (app.folder / "sweep" / "0").mkdir(parents=True)
    (app.folder / "sweep" / "0" / "summary.json").write_text("{}")
    assert app("-m", "seed=x").status == 2
    assert not (app.folder / "sweep" / "0" / "error.txt").exists()


def test_multirun_of_mistakes_only(app: App) -> None:
    assert app("-m", "seed=x,y").status == 2


def test_multirun_stops_before_the_first_job_if_a_name_is_wrong(app: App) -> None:
    outcome = app("-m", "algorithm=small,smalest")
    assert (outcome.status, app.seen) == (2, [])
    assert "got 'smalest'; did you mean small" in outcome.err


def test_multirun_interrupted_starts_no_further_job(app: App) -> None:
    assert app("-m", "seed=1,130,2").status == 130
    assert len(app.seen) == 1


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("population: expected an even number", "algorithm.population: expected an even number"),
        ("rank: expected no 13", "algorithm.part.rank: expected no 13"),
        ("part.rank: expected no 13", "algorithm.part.rank: expected no 13"),
        ("expected: a colon", "algorithm: expected: a colon"),
        ("no key at all", "algorithm: no key at all"),
        ("algorithm.part: said already", "algorithm.part: said already"),
        ("algorithm: said already", "algorithm: said already"),
    ],
)
def test_a_message_gets_the_place_of_what_it_is_about(message: str, told: str) -> None:
    assert placed(message, "algorithm", {"population": 7, "part": {"rank": 13}}) == told


@pytest.mark.parametrize(
    "target", ["os.system", f"{HERE}.Small", "evotext.run_folder.writer.json.dump", "torch.hub.load", "evotext"]
)
def test_targets_outside_the_project_need_leave(app: App, target: str) -> None:
    outcome = app("allow_custom_targets=false", f"algorithm._target_={target}")
    assert (outcome.status, app.seen) == (2, [])
    assert "algorithm._target_: expected a class or function of evotext, envs" in outcome.err
    assert "add allow_custom_targets=true" in outcome.err


def test_targets_that_the_users_own_folder_names_have_leave(app: App) -> None:
    body = CONFIGURATION["algorithm/small.yaml"]
    app.write("algorithm/mine.yaml", body, root="mine")
    app.write("algorithm/other.yaml", "{_target_: os.getcwd}", root="mine")
    words = (f"--config-dir={app.folder / 'mine'}", "allow_custom_targets=false", "algorithm=mine")
    assert app(*words).err == ""
    assert len(app.seen) == 1
    assert "got 'os.getcwd'" in app(*words, "algorithm._target_=os.getcwd").err, "only what the chosen file names"


KEYS = (
    "seed",
    "algorithm",
    "algorithm.population",
    "algorithm.part",
    "budget",
    "budget.unit",
    "threads",
    "hydra.job.num",
)
VALUES = (
    "",
    "null",
    "-1",
    "1e400",
    "nan",
    "[1,2]",
    "{a:1}",
    "${seed}",
    "${",
    "a,b",
    "'",
    "\\",
    "~",
    "0x10",
    "${now:%}",
)
overrides = st.one_of(
    st.text(max_size=12),
    st.builds("{}{}={}".format, st.sampled_from(["", "+", "++", "~"]), st.sampled_from(KEYS), st.sampled_from(VALUES)),
    st.builds("{}={}".format, st.sampled_from(KEYS), st.text(max_size=8)),
)


@pytest.mark.slow
@settings(max_examples=40)
@given(words=st.lists(overrides, min_size=1, max_size=2))
@example(words=["-"])
@example(words=["--"])
@example(words=["~", "="])
def test_any_words_succeed_or_fail_in_one_line(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    outcome = App(tmp_path_factory.mktemp("app"))(*words)
    if outcome.status != 0:
        assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
        assert outcome.err.startswith("error: ")


@pytest.mark.slow
def test_the_real_script(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, TRAIN, "algorithm=egrol"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: algorithm: expected ")
    assert "'egrol'; did you mean eggroll" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []

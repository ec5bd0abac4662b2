"""`scripts/compare.py` as a person runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reports.run_folders import write_run

ROOT = Path(__file__).parents[2]


def compare(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    command = [sys.executable, str(ROOT / "scripts" / "compare.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=60, check=False)


def test_writes_the_report_and_prints_the_table(tmp_path: Path) -> None:
    for i, algorithm in enumerate(("eggroll", "grpo")):
        write_run(tmp_path / "sweep" / str(i), algorithm=algorithm)
    done = compare("sweep", "out=result", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == f"Report: {Path('result') / 'report.html'}"
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "too few seeds for a claim" in " ".join(done.stdout.split())
    names = {path.name for path in (tmp_path / "result").iterdir()}
    assert names == {"report.html", "report.md", "results.csv", "curves.svg"}


def test_default_folders_do_not_collide(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    for _ in range(2):
        assert compare("run", cwd=tmp_path).returncode == 0
    assert len(list((tmp_path / "reports").glob("*/report.html"))) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected at least one run folder"),
        (["nowhere"], "'nowhere', which is not a folder"),
        (["empty"], "no runs in 'empty'"),
        (["run", "outt=x"], "got 'outt=x'; did you mean 'out'?"),
        (["run", "--out"], "got '--out'; did you mean 'out'?"),
        (["run", "metric=sucess"], "got metric=sucess; did you mean 'success'?"),
        (["run", "out="], "expected a value after out="),
        (["run", "out=file/below"], "expected a folder to write to"),
    ],
)
def test_bad_words_are_one_line_and_status_2(tmp_path: Path, words: list[str], message: str) -> None:
    write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    done = compare(*words, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_a_reader_that_leaves_and_a_poor_terminal_are_no_errors(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    command = [sys.executable, str(ROOT / "scripts" / "compare.py"), str(tmp_path / "run"), f"out={tmp_path / 'out'}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    reading, writing = os.pipe()
    os.close(reading)
    for stdout in (writing, subprocess.PIPE):
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=environment, timeout=60, check=False)
        assert done.returncode == 0 and done.stderr == b""
    os.close(writing)
    assert b"0.20 ? 0." in done.stdout


def test_starts_without_torch_and_scipy() -> None:
    code = (
        "import sys; sys.argv = ['x', '-h']; sys.path.insert(0, 'scripts'); import compare; print(sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    loaded = {word.strip(" '[]\n") for word in done.stdout.split(",")}
    assert "evotext.reports.comparison" in loaded
    assert not {"torch", "transformers", "scipy", "pandas"} & loaded

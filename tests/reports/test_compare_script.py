"""`scripts/compare.py` as a person runs it."""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
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
    assert names == {"report.html", "report.md", "results.csv", "tables.tex", "curves.svg"}


def test_watching_follows_the_runs(tmp_path: Path) -> None:
    """From no run at all over one that goes on to its end, and after Ctrl-C a page that stays."""
    sweep, page = tmp_path / "sweep", tmp_path / "out" / "report.html"
    command = [sys.executable, str(ROOT / "scripts" / "compare.py"), str(sweep), f"out={page.parent}", "watch=1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as watching:
        assert watching.stdout is not None
        try:
            line = watching.stdout.readline()
            assert "written anew every 1 s" in line
            address = line.split()[1]
            assert "waiting: expected a run folder" in watching.stdout.readline()
            aside = write_run(tmp_path / "aside", status="interrupted")
            summary = (aside / "summary.json").read_text()
            (aside / "summary.json").unlink()
            sweep.mkdir()
            aside.rename(sweep / "0")
            line = watching.stdout.readline()
            assert re.search(r"1 run: 1 unfinished \(50%\), about [\d.]+ s left$", line.rstrip()), line
            live = urllib.request.urlopen(address).read().decode()
            assert "50%" in live and line.split("about ")[1].split(" left")[0] in live
            assert 'data-refresh="1"' in page.read_text() and "50% of its budget spent" in page.read_text()
            (sweep / "0" / "summary.json").write_text(summary.replace("interrupted", "completed"))
            assert "1 run: 1 completed" in watching.stdout.readline()
            watching.send_signal(signal.SIGINT)
            rest, errors = watching.communicate(timeout=30)
        finally:
            watching.kill()
    assert watching.returncode == 0 and errors == "" and rest.strip() == f"Report: {page}"
    assert "data-refresh" not in page.read_text().split("<script")[0]
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(address)


def test_default_folders_do_not_collide(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    for _ in range(2):
        assert compare("run", cwd=tmp_path).returncode == 0
    assert len(list((tmp_path / "comparisons").glob("*/report.html"))) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected at least one run's folder"),
        (["nowhere"], "'nowhere', which is not a folder"),
        (["empty"], "no runs in 'empty'"),
        (["run", "outt=x"], "got 'outt=x'; did you mean out?"),
        (["run", "--out"], "got '--out'; did you mean out?"),
        (["run", "metric=sucess"], "metric: expected 'success' or 'return', got 'sucess'; did you mean success?"),
        (["run", "watch=often"], "watch: expected an integer or true or false, got 'often'"),
        (["run", "watch=86401"], "watch: expected a number of at most 86400"),
        (["run", "--wach"], "got '--wach'; did you mean watch?"),
        (["run", "out="], "out: expected a value, got nothing"),
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
    assert done.stderr.startswith("error: ")


def test_help_wherever_it_stands(tmp_path: Path) -> None:
    done = compare("nowhere", "--help", "out=x", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("Compare runs:") and not done.stderr


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
    code = "import sys; import evotext.commands.compare; print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    loaded = {word.strip(" '[]\n") for word in done.stdout.split(",")}
    assert "evotext.reports.comparison" in loaded
    assert not {"torch", "transformers", "scipy", "pandas"} & loaded

"""The benchmark in parts: what is measured is kept, what fails is said, what is left is told from what failed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["members=2", "prompts=8", "new_tokens=2", "repeats=1", "threads=1", "device=cpu"]


@pytest.fixture
def benchmark_parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import benchmark_parts

    return benchmark_parts


def call(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / "benchmark_parts.py", "--out", out, "--models", "1M", *words]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_part_that_fails_leaves_its_reason_and_is_settled(benchmark_parts, tmp_path: Path) -> None:
    part = benchmark_parts.Part(name="bad", words=(sys.executable, "-c", "raise SystemExit('no kernel image')"))
    assert benchmark_parts.run(part, tmp_path, 60.0, whole=True)
    assert "exit status 1" in part.log(tmp_path).read_text() and "no kernel image" in part.log(tmp_path).read_text()
    assert benchmark_parts.settled(part, tmp_path) and not part.figures(tmp_path).exists()


@pytest.mark.parametrize("whole", [True, False])
def test_only_a_part_that_had_the_whole_time_fails_by_it(benchmark_parts, tmp_path: Path, whole: bool) -> None:
    part = benchmark_parts.Part(name="slow", words=(sys.executable, "-c", "import time; time.sleep(60)"))
    part.figures(tmp_path).write_text("{}")  # half of its figures
    assert benchmark_parts.run(part, tmp_path, 0.5, whole=whole) == whole
    assert not part.figures(tmp_path).exists()
    assert benchmark_parts.settled(part, tmp_path) == whole


def test_large_models_are_measured_without_masters(benchmark_parts, tmp_path: Path) -> None:
    by_name = {part.name: part.words for part in benchmark_parts.parts(tmp_path, ["1.5B", "8B"], ["repeats=3"])}
    assert list(by_name)[:3] == ["gpu-tests", "1.5B-generation", "8B-generation"]
    assert "eggroll.narrow_weights=stochastic" in by_name["8B-memory"]
    assert "eggroll.narrow_weights=stochastic" not in by_name["1.5B-memory"]
    assert all(words[-1] == "repeats=3" for name, words in by_name.items() if name != "gpu-tests")


def test_a_call_whose_time_is_up_starts_nothing_more(benchmark_parts, tmp_path: Path, monkeypatch, capsys) -> None:
    started: list[str] = []

    def run(part, out: Path, seconds: float, *, whole: bool) -> bool:
        started.append(part.name)
        return True

    monkeypatch.setattr(benchmark_parts, "run", run)
    monkeypatch.setattr(
        sys, "argv", ["benchmark_parts.py", "--out", str(tmp_path), "--models", "1M", "--minutes", "0.1"]
    )
    assert benchmark_parts.main() == 75
    assert started == ["gpu-tests"]
    assert "left: 1M-generation, 1M-generation-1024," in capsys.readouterr().out


@pytest.mark.slow
def test_what_is_measured_is_not_measured_again(tmp_path: Path) -> None:
    first = call(tmp_path, "--only", "1M-update", *SMALL)
    assert first.returncode == 0, first.stdout + first.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["1M-update.json"]
    when = (tmp_path / "1M-update.json").stat().st_mtime_ns
    second = call(tmp_path, "--only", "1M", *SMALL)
    assert second.returncode == 0, second.stdout + second.stderr
    assert {file.name for file in tmp_path.iterdir()} == {
        f"1M-{part}.json" for part in ("generation", "generation-1024", "population", "update", "memory")
    }
    assert (tmp_path / "1M-update.json").stat().st_mtime_ns == when
    assert json.loads((tmp_path / "1M-update.json").read_text())["figures"][0]["name"] == "update_share"

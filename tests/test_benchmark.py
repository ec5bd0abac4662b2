"""The benchmark's arithmetic, and every suite once on the smallest scale (never what it measures)."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.scripts_in_process import status_of

ROOT = Path(__file__).resolve().parent.parent
KEYS = {"name", "model", "rows", "members", "rank", "value", "low", "high", "unit", "repeats"}
EXPECTED = {
    "generation": ["perturbed_over_plain", "engine_over_transformers_generate", "share_of_machine_limit"],
    "population": ["eggroll_over_naive"],
    "update": ["update_share"],
    "memory": [
        "peak_over_plain_generation",
        "peak_over_plain_generation/adam",
        "peak_over_plain_generation/adafactor",
        "peak_over_plain_generation/scored_es",
        "peak_over_plain_generation/grpo",
        "peak_over_plain_generation/ppo",
    ],
}


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "benchmark.py", *words], capture_output=True, text=True, cwd=ROOT
    )


def test_arms_take_turns_and_none_always_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    from evotext.commands.benchmarks.figures import alternate, ratios

    calls: list[tuple[str, int]] = []

    def arm(name: str):
        def measure(repeat: int) -> float:
            calls.append((name, repeat))
            return float(repeat)

        return measure

    measured = alternate({"a": arm("a"), "b": arm("b")}, 2)
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 2)]
    assert measured == {"a": [1.0, 2.0], "b": [1.0, 2.0]}
    assert ratios([6.0, 2.0], [3.0, 4.0]) == [2.0, 0.5]


def test_every_suite_measures_and_writes_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    sizes = ["members=2", "prompts=8", "new_tokens=2", "repeats=1", "threads=1", "device=cpu"]
    result = _run(f"suite=[{','.join(EXPECTED)}]", *sizes, f"out={out}")
    assert result.returncode == 0, result.stderr
    record = json.loads(out.read_text())
    assert record["device"] == "cpu, 1 threads" and record["versions"]["torch"]
    assert all(isinstance(name, str) for name in record["processor_features"])
    assert [f["name"] for f in record["figures"]] == [name for names in EXPECTED.values() for name in names]
    for figure in record["figures"]:
        assert set(figure) == KEYS
        assert figure["low"] <= figure["value"] <= figure["high"]
        # This one divides by a difference of two times, which on so small a scale is lost in their noise.
        assert figure["low"] > 0 or figure["name"] == "share_of_machine_limit"
        assert figure["name"] in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["suite=generatoin"], "suite: expected some of generation, population"),
        (["model.size=2M"], "model.size: expected one of 1M, 25M"),
        (["repeats=0"], "repeats: expected a number of at least 1, got 0"),
        (["model.dtype=int8"], "model.dtype: expected"),
        (["device=tpu"], "device: expected auto, cpu"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert status_of("benchmark", *words, monkeypatch=monkeypatch) == 2
    errors = capfd.readouterr().err
    assert errors.startswith("error: ") and message in errors
    assert errors.count("\n") == 1


def test_a_suite_that_does_not_fit_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Earlier measurements are on disk by then."""
    from evotext.commands.benchmarks import memory, update
    from evotext.commands.benchmarks.figures import Figure, Setting, figure

    out = tmp_path / "figures.json"

    def full(setting: Setting) -> list[Figure]:
        assert len(json.loads(out.read_text())["figures"]) == 1
        raise torch.OutOfMemoryError("CUDA out of memory")

    def measured(setting: Setting) -> list[Figure]:
        return [figure("update_share", [0.5], setting, rows=1)]

    monkeypatch.setattr(update, "figures", measured)
    monkeypatch.setattr(memory, "figures", full)
    assert (
        status_of("benchmark", "suite=[update,memory,update]", "device=cpu", f"out={out}", monkeypatch=monkeypatch) == 0
    )
    assert "memory left out: 1M needs more memory than there is" in capfd.readouterr().err
    assert [f["name"] for f in json.loads(out.read_text())["figures"]] == ["update_share", "update_share"]


def test_environments_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from evotext.commands.benchmarks import environments

    tasks = [task for task in environments.native_tasks() if task.name in ("sort", "arithmetic")]
    monkeypatch.setattr(environments, "native_tasks", lambda: tasks)
    monkeypatch.setattr(environments, "ROWS", 4)
    monkeypatch.setattr(environments, "WAIT", 0.001)
    words = ["suite=environments", "repeats=1", "threads=1", "device=cpu", f"out={tmp_path / 'figures.json'}"]
    words += ["model.dtype=float32"]
    assert status_of("benchmark", *words, monkeypatch=monkeypatch) == 0, capfd.readouterr().err
    names = [figure["name"] for figure in json.loads((tmp_path / "figures.json").read_text())["figures"]]
    expected = [
        "workers_over_one",
        "waiting_over_slowest_row",
        "environment_share/arithmetic",
        "environment_share/sort",
    ]
    assert names == expected


def test_trl_is_measured_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["suite=trl", "new_tokens=4", "repeats=1", "threads=1", "device=cpu", f"out={tmp_path / 'figures.json'}"]
    if importlib.util.find_spec("trl") is None:
        assert status_of("benchmark", *words, monkeypatch=monkeypatch) == 2
        assert "expected TRL to be installed, found none; run: pip install" in capfd.readouterr().err
        return
    from evotext.commands.benchmarks import trl

    monkeypatch.setattr(trl, "SEEDS", 1)
    monkeypatch.setattr(trl, "LEARNING_STEPS", 1)
    monkeypatch.setattr(trl, "LAST_STEPS", 1)
    assert status_of("benchmark", *words, monkeypatch=monkeypatch) == 0, capfd.readouterr().err
    names = [figure["name"] for figure in json.loads((tmp_path / "figures.json").read_text())["figures"]]
    assert names == ["grpo_over_trl", "grpo_over_trl/uneven", "grpo_peak_over_trl", "grpo_reward_over_trl"]

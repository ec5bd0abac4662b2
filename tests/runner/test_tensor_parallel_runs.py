"""Runs whose model several processes hold together: the single process's records, files and checkpoints."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.runner.small_runs import CONF, ended, lines_of, run_to_the_end, small_starting_model, start, together

BATCHES = {"generations": 3, "rows": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model = small_starting_model()
    model.network.config.tie_word_embeddings = True  # one tensor under two names, divided and saved once
    model.network.tie_weights()
    model.save(folder)
    return folder


def options(model: Path, size: int | None, **more: Any) -> dict[str, Any]:
    return BATCHES | {"source": {"path": model, "size": size}} | more


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    run_to_the_end(folder, "eggroll", options=options(model, None))
    return folder


def check_alike(found: Path, expected: Path, *, kinds: tuple[str, ...] = ("train", "eval")) -> None:
    """A run that goes on with a larger budget has measured at other times."""
    for name, weight in load_file(expected / "model" / "model.safetensors").items():
        saved = load_file(found / "model" / "model.safetensors")[name]
        torch.testing.assert_close(saved, weight, rtol=0, atol=1e-5)
    lines, others = ([line for line in lines_of(folder) if line["kind"] in kinds] for folder in (expected, found))
    for line, other in zip(lines, others, strict=True):
        assert set(line) <= set(other)
        for key in set(line) - {"kind"}:
            assert other[key] == pytest.approx(line[key], rel=1e-3, abs=1e-5), key


@pytest.mark.parametrize(("processes", "size"), [(2, 2), (4, 2)])
def test_a_run_records_and_saves_what_one_process_does(
    tmp_path: Path, model: Path, alone: Path, processes: int, size: int
) -> None:
    """Groups of two share the population where there are four."""
    assert (
        ended(*together(processes, run_to_the_end, tmp_path, "eggroll", False, options(model, size))) == [0] * processes
    )
    check_alike(tmp_path, alone)
    assert lines_of(tmp_path, "episodes.jsonl") == lines_of(alone, "episodes.jsonl")
    assert json.loads((tmp_path / "summary.json").read_text())["processes"] == processes


@pytest.mark.parametrize(
    ("before", "after"),
    [((2, 2), (1, None)), ((1, None), (2, 2)), pytest.param((4, 4), (2, 2), marks=pytest.mark.slow)],
)
def test_another_number_of_processes_goes_on(
    tmp_path: Path, model: Path, alone: Path, before: tuple[int, int | None], after: tuple[int, int | None]
) -> None:
    """Masters, moments and weights are put together in a checkpoint, and divided anew."""
    for (processes, size), resume, generations in ((before, False, 2), (after, True, 3)):
        words = tmp_path, "eggroll", resume, options(model, size, generations=generations)
        run = together(processes, run_to_the_end, *words) if processes > 1 else [start(run_to_the_end, *words)]
        assert ended(*run) == [0] * processes
    check_alike(tmp_path, alone, kinds=("train",))


@pytest.mark.slow
def test_torchrun_trains_and_evaluates_a_divided_model(tmp_path: Path, model: Path) -> None:
    """The commands as a user types them: two groups of two, then two processes that measure what was tuned."""
    words = {
        "train": [
            *("algorithm=eggroll", "algorithm.population=8", "algorithm.prompts=2", "env=gym", "env.max_new_tokens=5"),
            *("env.id=tests.rollouts.toy_environments:toy/Chatter-v0", "model=hf", f"model.path={model}"),
            *(
                "model.dtype=float32",
                "model.parallel=tensor",
                "model.parallel_size=2",
                "budget=updates",
                "budget.limit=2",
            ),
            *("evaluation.episodes=4", "evaluation.points=1", f"hydra.run.dir={tmp_path / 'run'}"),
        ],
        "evaluate": [f"run={tmp_path / 'run'}", "evaluation.episodes=4", f"out={tmp_path / 'found.json'}"],
    }
    for processes, command in ((4, "train"), (2, "evaluate")):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]  # a free port
        asked = [*words[command], "device=cpu", "threads=1"]
        done = subprocess.run(
            [*torchrun, f"scripts/{command}.py", *asked],
            cwd=CONF.parent,
            env=os.environ | {"PYTHONPATH": str(CONF.parent)},  # of the toy environment
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["processes"]) == ("completed", 4)
    assert json.loads((tmp_path / "found.json").read_text())["return"] == summary["eval"]["return_after"]

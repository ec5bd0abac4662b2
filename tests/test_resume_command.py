"""`resume=RUN_DIR` and torchrun as a user types them, with processes that are killed."""

import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runner.small_runs import ended, outcome_of, small_starting_model, start

ROOT = Path(__file__).resolve().parent.parent
WORDS = [
    "algorithm=eggroll",
    "algorithm.population=8",
    "algorithm.prompts=2",
    "env=gym",
    "env.id=tests.rollouts.toy_environments:toy/Chatter-v0",
    "env.max_new_tokens=5",
    "model=hf",
    "model.dtype=float32",
    "budget=updates",
    "budget.limit=8",
    "evaluation.episodes=4",
    "evaluation.points=4",
    "checkpoint.seconds=1e-9",
    "threads=1",
    "rows=4",
]


def script(errors: Path, *words: str) -> None:
    """The script, in a process that has torch loaded already."""
    os.chdir(ROOT)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(2, 1)
    sys.argv = ["scripts/train.py", *words]
    runpy.run_path("scripts/train.py", run_name="__main__")


def wait_for_lines(folder: Path, lines: int, alive: Callable[[], bool]) -> None:
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() or len(metrics.read_bytes().splitlines()) < lines:
        assert alive() and time.monotonic() < deadline
        time.sleep(0.005)


def workers(agent: int) -> list[int]:
    """Processes that torchrun has started, the first of the run first."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    ranked = []
    for child in map(int, children):
        found = re.search(rb"\0RANK=(\d+)\0", Path(f"/proc/{child}/environ").read_bytes())
        if found:
            ranked.append((int(found.group(1)), child))
    return [child for _, child in sorted(ranked)]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    model = tmp_path_factory.mktemp("model")
    small_starting_model().save(model)
    return [*WORDS, f"model.path={model}"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert ended(start(script, folder / "said", *words, f"hydra.run.dir={folder}")) == [0]
    return folder


def test_a_killed_run_goes_on_by_resume(tmp_path: Path, words: list[str], whole: Path) -> None:
    folder, said = tmp_path / "it's, a=name", tmp_path / "said"  # a name that has to be quoted
    written = str(folder).replace("'", r"\'")
    process = start(script, said, *words, f"hydra.run.dir='{written}'")
    wait_for_lines(folder, 4, process.is_alive)
    process.kill()
    assert ended(process) == [-9]
    for wrong, told in (
        ("seed=1", "expected a run to go on as it is, got also 'seed=1'"),
        ("budget.limit=nan", "budget.limit: expected a finite number"),
        ("-m", "expected one run's folder and no multirun"),
        ("replay=x", "expected a run to go on as it is"),
    ):
        assert ended(start(script, said, f"resume={folder}", wrong)) == [2]
        assert said.read_text().startswith("error: ") and said.read_text().count("\n") == 1
        assert told in said.read_text()
    assert ended(start(script, said, f"resume={folder}")) == [0], said.read_text()
    assert "completed: held-out success" in said.read_text()
    assert outcome_of(folder) == outcome_of(whole)
    assert ended(start(script, said, f"resume={folder}")) == [0]
    assert said.read_text().startswith("completed already")
    longer = ["budget.limit=9", "checkpoint.keep=1", "device=cpu"]
    assert ended(start(script, said, f"resume={folder}", *longer)) == [0], said.read_text()
    assert outcome_of(folder)["summary"]["budget"]["spent"] == 9


@pytest.mark.parametrize("made", ["nothing", "empty", "damaged"])
def test_a_folder_without_a_run_is_refused(tmp_path: Path, made: str) -> None:
    folder, said = tmp_path / "run", tmp_path / "said"
    if made != "nothing":
        (folder / ".hydra").mkdir(parents=True)
    if made == "damaged":
        (folder / ".hydra" / "overrides.yaml").write_text("[a")
    assert ended(start(script, said, f"resume={folder}")) == [2]
    assert said.read_text().startswith("error: resume: expected the ") and said.read_text().count("\n") == 1


def test_a_run_that_is_going_on_is_not_taken_up_twice(tmp_path: Path, words: list[str]) -> None:
    folder, said = tmp_path / "run", tmp_path / "said"
    process = start(script, said, *words, "budget.limit=100000", f"hydra.run.dir={folder}")
    wait_for_lines(folder, 2, process.is_alive)
    assert ended(start(script, tmp_path / "second", f"resume={folder}")) == [2]
    assert "expected a run that has ended" in (tmp_path / "second").read_text()
    process.terminate()
    assert ended(process) == [130]
    assert outcome_of(folder)["summary"]["status"] == "interrupted"


def without_training_sample(outcome: dict[str, Any]) -> dict[str, Any]:
    """Return the outcome but for the training episodes, which are those of the first process."""
    return outcome | {"episodes": [line for line in outcome["episodes"] if line.get("split") != "train"]}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds torchrun's workers in /proc")
def test_a_killed_process_of_torchrun_does_not_change_the_result(tmp_path: Path, words: list[str], whole: Path) -> None:
    folder = tmp_path / "run"
    with (tmp_path / "said").open("w") as said:
        agent = subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1"),
                *("scripts/train.py", *words, f"hydra.run.dir={folder}"),
            ],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=said,
            stderr=said,
        )
        wait_for_lines(folder, 4, lambda: agent.poll() is None)
        os.kill(workers(agent.pid)[1], signal.SIGKILL)
        assert agent.wait(120) == 0, (tmp_path / "said").read_text()
    assert (tmp_path / "said").read_text().count("completed: held-out success") == 1
    assert without_training_sample(outcome_of(folder)) == without_training_sample(outcome_of(whole))

"""A run that was stopped and taken up again ends as if it had never been stopped, to the last bit."""

import json
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from evotext.run_folder.manifest import MANIFEST
from evotext.runner.checkpoints import CheckpointError, CheckpointFolder
from tests.runner.small_runs import (
    ALGORITHMS,
    ended,
    let_go,
    lines_of,
    outcome_of,
    run_to_the_end,
    small_run,
    small_starting_model,
    start,
    weights_of,
)

KILLS = int(os.environ.get("EVOTEXT_KILLS", "1"))


class Stopped(BaseException):
    """Ends a run in the middle, like something that the run cannot handle."""


class StoppedAt:
    """A learner that is cut off when it is asked for (or told of) a generation."""

    def __init__(self, learner: Any, generation: int, when: str) -> None:
        self._learner, self._generation, self._when = learner, generation, when
        for name in ("state_dict", "load_state_dict"):
            setattr(self, name, getattr(learner, name))

    def ask(self, generation: int) -> Any:
        if self._when == "ask" and generation == self._generation:
            raise Stopped
        return self._learner.ask(generation)

    def tell(self, batch: Any) -> Any:
        report = self._learner.tell(batch)
        if self._when == "tell" and batch.plan.generation == self._generation:
            raise Stopped
        return report


def stop(folder: Path, algorithm: str, generation: int, when: str = "ask", **options: Any) -> None:
    run = small_run(folder, algorithm, wrap=lambda learner, _: StoppedAt(learner, generation, when), **options)
    with pytest.raises(Stopped):
        run.train()


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    outcomes: dict[str, dict[str, Any]] = {}
    for algorithm in ALGORITHMS:
        folder = tmp_path_factory.mktemp("never-stopped") / algorithm
        run_to_the_end(folder, algorithm)
        outcomes[algorithm] = outcome_of(folder)
    return outcomes


def test_the_runs_of_these_tests_change_the_weights(never_stopped: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    small_starting_model().save(tmp_path / "model")
    before = weights_of(tmp_path)
    assert len({before, *(outcome["weights"] for outcome in never_stopped.values())}) == len(ALGORITHMS) + 1


@pytest.mark.parametrize(
    ("algorithm", "generation", "when", "seconds"),
    [*((name, 4, "tell", 1e-9) for name in ALGORITHMS), *((name, 2, "ask", 1e9) for name in ("eggroll", "ppo"))],
)
def test_it_ends_as_if_never_stopped(
    tmp_path: Path,
    never_stopped: dict[str, dict[str, Any]],
    algorithm: str,
    generation: int,
    when: str,
    seconds: float,
) -> None:
    stop(tmp_path, algorithm, generation, when, checkpoint_seconds=seconds)
    run = small_run(tmp_path, algorithm, checkpoint_seconds=seconds)
    run.resume()
    run.train()
    assert outcome_of(tmp_path) == never_stopped[algorithm]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["resumes"] == 1


def test_a_run_without_a_checkpoint_begins_again(tmp_path: Path, never_stopped: dict[str, dict[str, Any]]) -> None:
    stop(tmp_path, "eggroll", 3, keep=0)
    assert not (tmp_path / "checkpoints").exists()
    run = small_run(tmp_path)
    run.resume()
    run.train()
    assert outcome_of(tmp_path) == never_stopped["eggroll"]


def test_no_point_of_a_curve_is_there_twice(tmp_path: Path) -> None:
    stop(tmp_path, "eggroll", 5, checkpoint_seconds=1e9)  # the last checkpoint is that of generation 3
    run = small_run(tmp_path)
    run.resume()
    run.train()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [point.step for point in events.Scalars("train/fitness/mean")] == list(range(1, 7))
    assert [point.step for point in events.Scalars("eval/success")] == [0, 3, 6]
    assert [line["generation"] for line in lines_of(tmp_path, "episodes.jsonl")] == [0, 3, 6]


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    run_to_the_end(tmp_path, "eggroll")
    best = max(
        (line for line in lines_of(tmp_path) if line["kind"] == "eval"),
        key=lambda line: (line["eval/success"], line["eval/return"], -line["generation"]),
    )
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {5, 6, best["generation"]}


@pytest.fixture(scope="module")
def two_generations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two-generations")
    run_to_the_end(folder, "eggroll", options={"generations": 2})
    return folder


@pytest.mark.parametrize("harm", ["changed", "emptied", "removed", "half written"])
@pytest.mark.parametrize("file", ["weights.safetensors", "algorithm.safetensors", "state.json", MANIFEST])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    tmp_path: Path, two_generations: Path, file: str, harm: str
) -> None:
    folder = shutil.copytree(two_generations / "checkpoints", tmp_path / "checkpoints")
    newest = folder / "00000002"
    content = (newest / file).read_bytes()
    spoilt = {"changed": b"x" + content[1:], "emptied": b"", "half written": content[: len(content) // 2]}
    if harm == "removed":
        (newest / file).unlink()
    else:
        (newest / file).write_bytes(spoilt[harm])
    said: list[str] = []
    found = CheckpointFolder(folder).load(lambda _: "", said.append)
    assert found is not None and found.generation == 1
    assert len(said) == 1 and str(newest) in said[0] and "cannot be used" in said[0]


def test_checkpoints_past_the_one_just_written_do_not_count_as_the_newest(
    tmp_path: Path, two_generations: Path
) -> None:
    """A run that found generation 2 damaged went on from 1: what it writes then is kept, and 2 is not."""
    shutil.copytree(two_generations / "checkpoints", tmp_path / "checkpoints")
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "00000002" / MANIFEST).unlink()
    found = checkpoints.load(lambda _: "", lambda _: None)
    assert found is not None
    checkpoints.save(found, keep=1, best=0)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["00000001"]


def test_no_usable_checkpoint_is_an_error_that_leaves_the_records_alone(tmp_path: Path, two_generations: Path) -> None:
    shutil.copytree(two_generations, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "checkpoints").iterdir():
        (path / MANIFEST).unlink()
    records = lines_of(tmp_path)
    run = small_run(tmp_path, generations=2)
    with pytest.raises(ValueError, match="expected a checkpoint that can be used"):
        run.resume()
    let_go(run)
    assert lines_of(tmp_path) == records


def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, two_generations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(two_generations / "checkpoints", tmp_path / "checkpoints")
    run = small_run(tmp_path, "grpo")
    with pytest.raises(ValueError, match="expected a checkpoint that can be used"):
        run.resume()
    let_go(run)
    assert "it is of another run" in capsys.readouterr().err


def test_records_that_lost_their_end_disqualify_a_checkpoint(
    tmp_path: Path, two_generations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(two_generations, tmp_path, dirs_exist_ok=True)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-200])
    run = small_run(tmp_path, generations=2)
    run.resume()
    let_go(run)
    assert "metrics.jsonl has" in capsys.readouterr().err
    assert run._at.generation == 1


def test_a_full_disk_ends_the_run_with_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, never_stopped: dict[str, dict[str, Any]]
) -> None:
    seal = CheckpointFolder.save.__globals__["seal"]

    def full_at_the_third(folder: Path) -> None:
        if list(folder.parent.glob("*2")):
            raise OSError(28, "No space left on device")
        seal(folder)

    monkeypatch.setitem(CheckpointFolder.save.__globals__, "seal", full_at_the_third)
    with pytest.raises(CheckpointError, match=r"No space left on device; the last one is .*/00000002"):
        small_run(tmp_path).train()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "failed" and "No space left" in summary["reason"]
    assert not (tmp_path / "checkpoints" / ".writing").exists()
    monkeypatch.undo()
    run = small_run(tmp_path)
    run.resume()
    run.train()
    assert outcome_of(tmp_path) == never_stopped["eggroll"]


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path, never_stopped: dict[str, dict[str, Any]]) -> None:
    """Every third kill waits for a checkpoint that is being written. EVOTEXT_KILLS sets their number."""
    moments = random.Random(0)
    for kill in range(KILLS):
        algorithm = ALGORITHMS[kill % len(ALGORITHMS)]
        folder = tmp_path / f"killed-{kill}"
        lines = moments.randint(0, 8)
        process = start(run_to_the_end, folder, algorithm)
        while (
            not (folder / "metrics.jsonl").exists() or len((folder / "metrics.jsonl").read_bytes().splitlines()) < lines
        ):
            assert process.is_alive()
        if kill % 3 == 0:
            while not (folder / "checkpoints" / ".writing").exists():
                assert process.is_alive()
        else:
            time.sleep(moments.uniform(0.0, 0.1))
        process.kill()
        assert ended(process) == [-9]
        process = start(run_to_the_end, folder, algorithm, True)
        assert ended(process) == [0]
        assert outcome_of(folder) == never_stopped[algorithm], f"kill {kill} of {algorithm}"

"""Runs that fall behind their neighbours end early, and no others."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from evotext.rollouts.collector import Collector
from evotext.run_folder import names
from evotext.run_folder.writer import JsonLines
from evotext.runner.budget import Budget
from evotext.runner.checkpoints import Checkpointing
from evotext.runner.evaluation import Evaluator
from evotext.runner.loop import Run
from evotext.runner.preflight import check_split
from evotext.runner.pruner import MedianPruner, NoPruner
from tests.rollouts.chatter import chatter
from tests.runner.small_runs import Starting
from tests.runner.test_loop import Counting, records
from tests.scripts_in_process import status_of
from tests.small_models import small_model

SETTING = {
    "env": {"id": "a"},
    "model": {"shape": "tiny"},
    "adapter": {},
    "budget": {"unit": "episodes", "limit": 100},
    "evaluation": {"points": 4},
}


def neighbour(
    sweep: Path,
    name: str,
    scores: list[float],
    unfinished: str = "",
    every: float = 0.25,
    metrics: tuple[str, ...] = ("success", "return"),
    **changes: object,
) -> Path:
    """A run that was measured before training and whenever so much of its budget was spent."""
    folder = sweep / name
    (folder / names.HYDRA).mkdir(parents=True)
    OmegaConf.save(SETTING | {"algorithm": {"lr": name}} | changes, folder / names.HYDRA / names.CONFIG)
    lines = JsonLines(folder)
    for i, score in enumerate(scores):
        lines.log({"kind": "train", "generation": i})
        measured = {f"eval/{metric}": score for metric in metrics}
        lines.log({"kind": "eval", "generation": i, "eval/spent": i * every, **measured})
    lines.close()
    with (folder / names.METRICS).open("a") as file:
        file.write(unfinished)
    return folder


def median(warm_up: float = 0.25, fewest: int = 3) -> MedianPruner:
    return MedianPruner(warm_up=warm_up, fewest=fewest)


@pytest.mark.parametrize(
    ("own", "behind"),
    [
        ([0.1, 0.29], True),  # the neighbours' second measurements: 0.2, 0.3, 0.4
        ([0.1, 0.3], False),
        ([0.1, 0.5], False),
        ([0.0], False),  # before training
        ([0.1, 0.9, 0.41], True),  # at the third: 0.3, 0.5 and 0.4
        ([0.1, 0.9, 0.9, 0.0], False),  # one neighbour alone is as far
    ],
)
def test_the_median_at_the_same_measurement_decides(tmp_path: Path, own: list[float], behind: bool) -> None:
    neighbour(tmp_path, "1", [0.1, 0.2, 0.3])
    neighbour(tmp_path, "2", [0.1, 0.3, 0.5], unfinished='{"kind": "ev')
    neighbour(tmp_path, "3", [0.1, 0.4, 0.45, 0.9])
    (tmp_path / "no run").mkdir()
    (tmp_path / "multirun.yaml").write_text("")
    reason = median().behind(neighbour(tmp_path, "own", own))
    assert bool(reason) is behind
    if len(own) == 2 and behind:
        assert reason == "success 0.290 is below 0.300, the median of 3 runs so far"


def test_without_a_success_the_return_decides(tmp_path: Path) -> None:
    for i, last in enumerate((-30.0, -20.0, -10.0)):
        neighbour(tmp_path, str(i), [-80.0, last], metrics=("return",))
    reason = median().behind(neighbour(tmp_path, "own", [-80.0, -21.0], metrics=("return",)))
    assert reason == "return -21.000 is below -20.000, the median of 3 runs so far"
    assert not median().behind(neighbour(tmp_path, "better", [-80.0, -19.0], metrics=("return",)))


def test_the_warm_up_is_left_to_every_run(tmp_path: Path) -> None:
    for i in range(3):
        neighbour(tmp_path, str(i), [0.1, 0.9, 0.9])
    assert median(warm_up=0.25).behind(neighbour(tmp_path, "early", [0.1, 0.2]))
    assert not median(warm_up=0.26).behind(tmp_path / "early")
    assert median(warm_up=0.26).behind(neighbour(tmp_path, "late", [0.1, 0.2, 0.2]))


def test_what_was_spent_is_compared_and_not_the_number_of_the_measurement(tmp_path: Path) -> None:
    """One learning curve, s = spent: neighbours of large generations are measured half as often, and nobody is behind."""
    for i in range(4):
        neighbour(tmp_path, str(i), [0.0, 0.25, 0.5, 0.75], every=0.25)
    assert not median(warm_up=0.1).behind(neighbour(tmp_path, "small", [0.0, 0.125, 0.25, 0.375], every=0.125))
    assert median(warm_up=0.1).behind(neighbour(tmp_path, "slow", [0.0, 0.1, 0.2, 0.24], every=0.125))


def test_a_neighbour_that_does_not_say_what_it_spent_is_none(tmp_path: Path) -> None:
    for i in range(3):
        folder = neighbour(tmp_path, str(i), [0.1, 0.9])
        (folder / "metrics.jsonl").write_text('{"kind": "eval", "eval/success": 0.9}\n')
    assert not median().behind(neighbour(tmp_path, "own", [0.1, 0.0]))


def test_a_damaged_neighbour_ends_no_other_run(tmp_path: Path) -> None:
    for i in range(3):
        neighbour(tmp_path, str(i), [0.1, 0.9], unfinished='{"kind": "eval", "eval/spent"\n[1]\n')
    broken = neighbour(tmp_path, "broken", [0.1, 0.9])
    (broken / names.HYDRA / names.CONFIG).write_text("[a")
    reason = median().behind(neighbour(tmp_path, "own", [0.1, 0.0]))
    assert reason == "success 0.000 is below 0.900, the median of 3 runs so far"


def test_a_neighbour_of_an_older_version_is_none(tmp_path: Path) -> None:
    for i in range(3):
        folder = neighbour(tmp_path, str(i), [0.1, 0.9])
        config = OmegaConf.load(folder / ".hydra" / "config.yaml")
        del config["adapter"]
        OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    assert not median().behind(neighbour(tmp_path, "own", [0.1, 0.0]))


@pytest.mark.parametrize("section", ["env", "model", "adapter", "budget", "evaluation"])
def test_runs_on_something_else_are_no_neighbours(tmp_path: Path, section: str) -> None:
    for i in range(4):
        neighbour(tmp_path, str(i), [0.1, 0.9], **{section: {"points": 5}})
    assert not median().behind(neighbour(tmp_path, "own", [0.1, 0.0]))


def test_a_folder_without_records_is_never_behind(tmp_path: Path) -> None:
    assert not median().behind(tmp_path / "nothing") and not NoPruner().behind(tmp_path)


class EndsAtOnce:
    chooses = True

    def behind(self, folder: Path) -> str:
        return "out of hope"


def run(folder: Path) -> Run:
    model = small_model("llama", torch.float32)
    return Run(
        algorithm=Starting(Counting),
        model=model,
        collector=Collector(model, chatter(), rows=8),
        budget=Budget(unit="updates", limit=6),
        evaluator=Evaluator(episodes=5, points=3, temperature=0.0, samples=2),
        trackers=[JsonLines(folder)],
        seed=7,
        names={"algorithm": "counting", "env": "chatter", "model": "small"},
        folder=folder,
        checkpointing=Checkpointing(seconds=60, keep=1),
        pruner=EndsAtOnce(),
    )


def test_a_pruned_run_is_recorded_whole(tmp_path: Path) -> None:
    summary = run(tmp_path).train()
    assert summary["status"] == "pruned" and summary["reason"] == "out of hope"
    assert [line["generation"] for line in records(tmp_path, "eval")] == [0, 2]
    assert (tmp_path / "model" / "config.json").exists() and json.loads(
        (tmp_path / "summary.json").read_text()
    ) == summary


def test_held_out_instances_do_not_choose() -> None:
    with pytest.raises(ValueError, match="pruner: expected evaluation.split=validation, got test"):
        check_split(EndsAtOnce(), Evaluator(episodes=5, points=3, temperature=0.0, samples=0))
    check_split(NoPruner(), Evaluator(episodes=5, points=3, temperature=0.0, samples=0))
    check_split(EndsAtOnce(), Evaluator(episodes=5, points=3, temperature=0.0, samples=0, split="validation"))


def test_train_py_ends_a_run_that_falls_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its model knows nothing and scores 0; the neighbours are copies of its records with better scores."""
    words = [
        "model=random",
        "env=sort",
        "algorithm=grpo",
        "algorithm.prompts=1",
        "budget=episodes",
        "budget.limit=32",
        "threads=1",
    ]
    words += ["evaluation.split=validation", "evaluation.episodes=4", "evaluation.points=4", "evaluation.samples=0"]
    words += ["tracker=none", "checkpoint.keep=0"]
    first = tmp_path / "0"
    assert status_of("train", *words, f"hydra.run.dir={first}", monkeypatch=monkeypatch) == 0, capfd.readouterr().err
    records_of_first = (first / "metrics.jsonl").read_text()
    (first / "metrics.jsonl").write_text(records_of_first.replace('"eval/success": 0.0', '"eval/success": 0.5'))
    shutil.copytree(first, tmp_path / "1")
    words += ["pruner=median", "pruner.fewest=2", "pruner.warm_up=0.5", f"hydra.run.dir={tmp_path / '2'}"]
    assert status_of("train", *words, monkeypatch=monkeypatch) == 0
    summary = json.loads((tmp_path / "2" / "summary.json").read_text())
    assert summary["status"] == "pruned" and summary["budget"]["spent"] == 16
    assert summary["reason"] == "success 0.000 is below 0.500, the median of 2 runs so far"

"""Training episodes in the records: the right ones, with their credit."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from evotext.run_folder.reader import read_run, read_training_episodes
from evotext.run_folder.schema import TrainingEpisode
from evotext.trackers.mlflow import MLflowRun
from evotext.trackers.wandb import WandBRun
from tests.runner.small_runs import lines_of, outcome_of, small_run
from tests.runner.test_resume import Stopped, StoppedAt


def train_lines(folder: Path) -> list[dict[str, Any]]:
    return [line for line in lines_of(folder, "episodes.jsonl") if line.get("split") == "train"]


class Watched:
    """Keeps what the learner was told and what it reported."""

    def __init__(self, learner: Any, told: list[Any]) -> None:
        self.ask, self._learner, self._told = learner.ask, learner, told
        self.state_dict, self.load_state_dict = learner.state_dict, learner.load_state_dict

    def tell(self, batch: Any) -> Any:
        report = self._learner.tell(batch)
        self._told.append((batch, report))
        return report


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [("eggroll", "fitness"), ("grpo", "advantage"), ("ppo", "advantage"), ("scored_es", "advantage")],
)
def test_every_so_many_generations_a_few_episodes_are_written(tmp_path: Path, algorithm: str, name: str) -> None:
    told: list[Any] = []
    small_run(tmp_path, algorithm, sample_every=3, wrap=lambda learner, _: Watched(learner, told)).train()
    lines = train_lines(tmp_path)
    assert [line["generation"] for line in lines] == [1] * 4 + [4] * 4
    for line in lines:
        batch, report = told[line["generation"] - 1]
        assert report.credit.name == name and len(report.credit.value_B) == len(batch.return_B)
        plan = batch.plan
        row = next(
            t.row
            for t in batch.transcripts
            if f"return {t.episode_return:g}" in line["text"] and t.instance == line["instance"]
        )
        same_instance = [i for i, instance in enumerate(plan.instances) if instance == line["instance"]]
        assert row in same_instance and line["group"] == plan.groups[row]
        assert line[name] in [float(report.credit.value_B[i]) for i in same_instance]
        assert line["advantage" if name == "fitness" else "fitness"] is None
        assert line["episode_return"] in [float(batch.return_B[i]) for i in same_instance]
        assert line["text"].startswith(f"env> s{line['instance']} ") and f", {name} {line[name]:.4g}" in line["text"]
        assert (line["member"] is None) == (plan.members is None)
    if algorithm in ("eggroll", "grpo"):
        assert len({line["instance"] for line in lines[:4]}) == 1, "answers to one instance, which are compared"
    if algorithm == "eggroll":
        assert [line["member"] for line in lines[:4]] == [0, 1, 2, 3]
        batch, report = told[0]
        shaped = {m: float(report.credit.value_B[i]) for i, m in enumerate(batch.plan.members)}
        assert [line["fitness"] for line in lines[:4]] == [shaped[m] for m in range(4)]


def test_an_episode_that_is_left_out_counts_for_nothing(tmp_path: Path) -> None:
    told: list[Any] = []
    run = small_run(tmp_path, "grpo", sample_every=1, fault="some", wrap=lambda learner, _: Watched(learner, told))
    run.train()
    lines = train_lines(tmp_path)
    faulty = [line for line in lines if "lost the [/database]" in line["text"]]
    assert faulty and all(line["advantage"] is None and "advantage" not in line["text"] for line in faulty)
    assert any(line["advantage"] is not None for line in lines)


def test_readers_tell_them_from_measured_episodes(tmp_path: Path) -> None:
    small_run(tmp_path, sample_every=2).train()
    assert [sample.generation for sample in read_run(tmp_path).samples] == [0, 3, 6]
    problems: list[str] = []
    episodes = list(read_training_episodes(tmp_path, problems))
    assert not problems and [e.generation for e in episodes] == [1] * 4 + [3] * 4 + [5] * 4
    assert episodes == [TrainingEpisode.model_validate(line) for line in train_lines(tmp_path)]
    with (tmp_path / "episodes.jsonl").open("a") as file:
        file.write(json.dumps({"split": "train", "generation": "x", "text": 7}) + "\n")
    assert list(read_training_episodes(tmp_path, problems))[-1] == TrainingEpisode() and len(problems) == 2


def test_tensorboard_shows_them_as_text(tmp_path: Path) -> None:
    small_run(tmp_path, sample_every=5).train()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    shown = events.Tensors("train/episodes/0/text_summary")
    assert [point.step for point in shown] == [1, 6]
    assert train_lines(tmp_path)[0]["text"].splitlines()[-1] in shown[0].tensor_proto.string_val[0].decode()


def test_none_are_written_unless_asked_for(tmp_path: Path) -> None:
    small_run(tmp_path, sample_every=0).train()
    assert not train_lines(tmp_path)


def test_a_resumed_run_writes_the_same(tmp_path: Path) -> None:
    small_run(tmp_path / "whole", sample_every=2).train()
    with pytest.raises(Stopped):
        small_run(tmp_path / "parts", sample_every=2, wrap=lambda one, _: StoppedAt(one, 3, "tell")).train()
    rest = small_run(tmp_path / "parts", sample_every=2)
    rest.resume()
    rest.train()
    assert outcome_of(tmp_path / "parts") == outcome_of(tmp_path / "whole")


def test_the_other_trackers_get_every_figure(tmp_path: Path) -> None:
    """Stand-ins take the place of their clients and are called as the packages' own are."""
    episodes = [
        TrainingEpisode(
            generation=7, instance=2 * i, group=0, member=i, episode_return=0.5, fitness=-0.25, text=f"llm> {i}"
        )
        for i in range(2)
    ]
    logged: list[Any] = []

    class Client:
        def log(self, record: dict[str, Any], step: int) -> None:
            logged.append((record, step))

        def log_text(self, run_id: str, text: str, file: str) -> None:
            logged.append((run_id, text, file))

    def rows(columns: list[str], data: list[list[Any]]) -> list[dict[str, Any]]:
        return [dict(zip(columns, row, strict=True)) for row in data]

    WandBRun(Client(), table=rows, folder=tmp_path).log_training_episodes(episodes)
    mlflow = SimpleNamespace(exceptions=SimpleNamespace(MlflowException=RuntimeError))
    MLflowRun(Client(), "id", mlflow=mlflow, folder=tmp_path).log_training_episodes(episodes)
    (table, step), text = logged
    assert step == 7 and [row["fitness"] for row in table["train/episodes"]] == [-0.25, -0.25]
    assert [row["text"] for row in table["train/episodes"]] == ["llm> 0", "llm> 1"]
    assert text == ("id", "llm> 0\n\nllm> 1", "train_episodes/000007.txt")

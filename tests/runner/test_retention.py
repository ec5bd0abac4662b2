"""Retention: nothing is lost where nothing changed; otherwise the figures are those found by hand."""

import json
from pathlib import Path

import pytest
import torch
from evotext.commands.retained import distances, retention

from evotext.rollouts.collector import Collector
from evotext.run_folder import names
from evotext.run_folder.configuration import read_config
from evotext.run_folder.reader import read_run
from evotext.run_folder.retention import read_retention
from evotext.runner.divergence import StartingPolicy
from evotext.runner.evaluation import Evaluator
from tests.rollouts.chatter import chatter, with_frequent_ends
from tests.scripts_in_process import status_of
from tests.small_models import small_model

EVALUATOR = Evaluator(episodes=6, points=1, temperature=0.0, samples=0)


def test_nothing_is_lost_where_nothing_changed() -> None:
    one, other = with_frequent_ends(small_model("llama")), with_frequent_ends(small_model("llama"))
    found = retention(one, other, [chatter(), chatter("NoThreshold")], EVALUATOR, rows=8, graphs=False)
    assert (found.drift, found.drift_share, len(found.tasks)) == (0.0, 0.0, 2)
    for task in found.tasks:
        assert task.return_before == task.return_after and task.success_before == task.success_after
        assert task.kl_from_start == 0.0
    assert found.tasks[0].success_before is not None and found.tasks[1].success_before is None


def test_what_changed_is_found() -> None:
    start, tuned = with_frequent_ends(small_model("llama")), with_frequent_ends(small_model("llama"))
    collector = Collector(start, chatter(), rows=8)
    said, square, norm = StartingPolicy(collector, episodes=6), 0.0, 0.0
    with torch.no_grad():
        for i, (old, new) in enumerate(zip(start.network.parameters(), tuned.network.parameters(), strict=True)):
            change = 0.3 * torch.randn(new.shape, generator=torch.Generator().manual_seed(i), dtype=new.dtype)
            new += change
            square, norm = square + float((change**2).sum()), norm + float((old.double() ** 2).sum())
    assert distances(start, tuned) == pytest.approx((norm**0.5, square**0.5))
    found = retention(start, tuned, [chatter()], EVALUATOR, rows=8, graphs=False)
    assert found.drift_share == pytest.approx((square / norm) ** 0.5)
    before = EVALUATOR.measure(collector, sampled=False).mean_return
    with torch.no_grad():  # the starting model becomes the tuned one, as in a run
        for old, new in zip(start.network.parameters(), tuned.network.parameters(), strict=True):
            old.copy_(new)
    (task,) = found.tasks
    assert task.kl_from_start == pytest.approx(said.divergence()[0]) and said.divergence()[0] > 1e-3
    assert task.return_before == before
    assert task.return_after == EVALUATOR.measure(collector, sampled=False).mean_return


def test_models_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a tuned model with the weights"):
        distances(small_model("llama"), small_model("gpt2"))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"retention": 3}', '{"retention": {"tasks": 3}}'])
def test_a_damaged_file_is_a_problem_and_no_error(tmp_path: Path, text: str) -> None:
    (tmp_path / names.EVALUATION).write_text(text)
    problems: list[str] = []
    found = read_retention(tmp_path, problems)
    assert problems and (found is None or not found.tasks)


@pytest.mark.slow
def test_the_command_compares_a_runs_end_with_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    small_model("llama", torch.float32).save(tmp_path / "start")
    monkeypatch.chdir(tmp_path)
    few = ("evaluation.episodes=4", "evaluation.samples=0", "threads=1")
    task = ("env=sort", "env.max_new_tokens=6", "algorithm=best_of_n", "algorithm.prompts=2", "algorithm.group_size=4")
    model = ("model=hf", f"model.path={tmp_path / 'start'}", "tracker=none")
    budget = ("budget=episodes", "budget.limit=8", f"hydra.run.dir={tmp_path / 'run'}")
    assert status_of("train", *task, *model, *budget, *few, monkeypatch=monkeypatch) == 0
    assert read_config(tmp_path / "run")
    capfd.readouterr()
    assert status_of("evaluate", "run=run", "retention=[arithmetic,code]", *few, monkeypatch=monkeypatch) == 0
    said = capfd.readouterr().out
    assert "What the run unlearned" in said and "arithmetic" in said and "weights moved by" in said
    found = read_run(tmp_path / "run").retention
    assert found is not None and [task.env for task in found.tasks] == ["arithmetic", "code"]
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["retention"] == found.model_dump()
    assert status_of("evaluate", "run=run", "retention=[arithmetik]", monkeypatch=monkeypatch) == 2
    assert "did you mean arithmetic?" in capfd.readouterr().err
    assert status_of("evaluate", "retention=[code]", monkeypatch=monkeypatch) == 2
    assert "retention: expected run=RUN_DIR" in capfd.readouterr().err

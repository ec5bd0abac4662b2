"""Schedules by the share of the budget: every learner with schedules hears of it, also when it is taken up again."""

from pathlib import Path
from typing import Any

import pytest

from tests.runner.small_runs import lines_of, outcome_of, small_run
from tests.runner.test_resume import Stopped, StoppedAt

FALL = {"_target_": "evotext.optimization.schedules.Linear", "generations": None, "end": 0.0, "warm_up": 0}


def factors(folder: Path, name: str) -> list[float]:
    values = [line[name] for line in lines_of(folder) if line["kind"] == "train"]
    return [value / values[0] for value in values]


@pytest.mark.parametrize("algorithm", ["eggroll", "grpo", "ppo", "sft", "scored_es"])
def test_what_has_a_schedule_falls_with_what_is_left_of_the_budget(tmp_path: Path, algorithm: str) -> None:
    settings: dict[str, Any] = {"learning_rate_schedule": FALL}
    if algorithm in ("eggroll", "scored_es"):
        settings["sigma_schedule"] = FALL
    if algorithm in ("grpo", "ppo"):
        settings["kl_schedule"] = FALL
    small_run(tmp_path, algorithm, generations=4, settings=settings).train()
    assert factors(tmp_path, "learning_rate") == pytest.approx([1.0, 0.75, 0.5, 0.25])
    if "sigma_schedule" in settings:
        assert factors(tmp_path, "sigma") == pytest.approx([1.0, 0.75, 0.5, 0.25])
    if "kl_schedule" in settings:
        assert factors(tmp_path, "kl_coefficient") == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_a_shorter_budget_makes_the_fall_steeper(tmp_path: Path) -> None:
    small_run(tmp_path, "grpo", generations=2, settings={"learning_rate_schedule": FALL}).train()
    assert factors(tmp_path, "learning_rate") == pytest.approx([1.0, 0.5])


def test_a_curriculum_passes_the_budget_on(tmp_path: Path) -> None:
    small_run(tmp_path, generations=2, levels=True, settings={"learning_rate_schedule": FALL}).train()
    assert factors(tmp_path, "learning_rate") == pytest.approx([1.0, 0.5])


class Cut(StoppedAt):
    def follow(self, spent: float) -> None:
        self._learner.follow(spent)


def test_a_resumed_run_goes_on_where_its_schedule_was(tmp_path: Path) -> None:
    options: dict[str, Any] = {"generations": 4, "settings": {"learning_rate_schedule": FALL, "sigma_schedule": FALL}}
    small_run(tmp_path / "whole", **options).train()
    with pytest.raises(Stopped):
        small_run(tmp_path / "parts", wrap=lambda one, _: Cut(one, 2, "ask"), **options).train()
    rest = small_run(tmp_path / "parts", **options)
    rest.resume()
    rest.train()
    assert outcome_of(tmp_path / "parts") == outcome_of(tmp_path / "whole")

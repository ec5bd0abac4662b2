"""A budget ends within itself: the last generation is cut to what is left, or left out."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evotext.models.language_model import LanguageModel
from evotext.runner.budget import LATEST, Budget, Taken, Unit
from evotext.runner.closing import few_generations
from evotext.runner.run_state import RunState
from evotext.types import Cost, Outcome, RolloutPlan, Sampling, Trajectories, UpdateReport
from tests.optimizers.generations import RATE, SIGMA, eggroll, told
from tests.rollouts.chatter import chatter
from tests.runner.small_runs import EPISODES, let_go, lines_of, outcome_of, small_run
from tests.runner.test_loop import Counting, records, run
from tests.small_models import small_model

ROWS = 6


def plan(groups: tuple[int, ...], groups_a_part: int = 1) -> RolloutPlan:
    return RolloutPlan(
        seed=0,
        generation=0,
        instances=tuple(100 + group for group in groups),
        groups=groups,
        sampling=Sampling(temperature=1.0),
        groups_a_part=groups_a_part,
    )


@pytest.mark.parametrize(
    ("groups_a_part", "rows", "kept"),
    [
        (1, math.inf, (0, 1, 2, 3) * 2),
        (1, 8, (0, 1, 2, 3) * 2),
        (1, 7.9, (0, 1, 2) * 2),
        (1, 3, (0,) * 2),
        (1, 1, (0,) * 2),  # never less than one
        (1, -5, (0,) * 2),
        (2, 7, (0, 1) * 2),
        (3, 7, (0, 1, 2) * 2),  # the last part is smaller
        (0, 7, (0, 1, 2, 3) * 2),
    ],
)
def test_a_plan_is_cut_by_whole_parts(groups_a_part: int, rows: float, kept: tuple[int, ...]) -> None:
    whole = plan((0, 1, 2, 3) * 2, groups_a_part)
    cut = whole.shortened(rows)
    assert cut.groups == kept and cut.instances == tuple(100 + group for group in kept)
    assert (cut is whole) == (len(kept) == 8)


def test_a_population_keeps_its_members() -> None:
    whole = eggroll(population=4, prompts=3).start(small_model(), 0).ask(0)
    cut = whole.shortened(9)
    assert cut.members == (0, 0, 1, 1, 2, 2, 3, 3) and cut.groups == (0, 1) * 4
    assert cut.instances == whole.instances[:2] * 4 and cut.noise is whole.noise


@pytest.mark.parametrize(
    ("unit", "latest", "left"),
    [
        ("flops", (), math.inf),
        ("episodes", (), 60),
        ("flops", [Taken(10, 20.0, 0.0)], 30),
        (
            "flops",
            [Taken(10, 20.0, 0.0), Taken(20, 60.0, 6.0)],
            18,
        ),  # the dearest row, and what a generation takes besides
        ("flops", [Taken(10, 20.0, 61.0)], -0.5),
        ("seconds", [Taken(0, 0.0, 60.0)], math.inf),
        ("seconds", [Taken(0, 0.0, 60.1)], -math.inf),
    ],
)
def test_how_many_rows_are_left(unit: Unit, latest: list[Taken], left: float) -> None:
    spent = Cost(episodes=40, flops=40.0, rollout_seconds=40.0)
    assert Budget(unit=unit, limit=100).rows_left(spent, latest) == pytest.approx(left, rel=1e-6)


def test_what_is_in_proportion_to_the_rows() -> None:
    rollouts, update = Cost(episodes=10, flops=6.0), Cost(flops=3.0, updates=2)
    for unit, fixed, expected in (
        ("flops", False, Taken(10, 9.0, 0.0)),
        ("flops", True, Taken(10, 6.0, 3.0)),
        ("episodes", True, Taken(10, 10.0, 0.0)),
        ("updates", False, Taken(10, 0.0, 2.0)),  # a shorter generation takes as many steps
    ):
        budget = Budget(unit=unit, limit=100)  # type: ignore[arg-type]
        assert budget.taken(10, rollouts, update, update_is_fixed=fixed) == expected
    assert Budget(unit="flops", limit=100).taken(0, Cost(), update, update_is_fixed=False) == Taken(0, 0.0, 3.0)


def test_only_the_latest_generations_count() -> None:
    at = RunState()
    for rows in range(10):
        at.took(Taken(rows, 1.0, 0.0))
    assert [taken.rows for taken in at.latest] == list(range(10))[-LATEST:]
    assert RunState.from_json(json.loads(json.dumps(at.to_json()))) == at


class Divisible(Counting):
    """Six rows a generation, each of which takes a second to learn from."""

    asked_rows: tuple[int, ...] = ()

    def ask(self, generation: int) -> RolloutPlan:
        rows = tuple(range(ROWS))
        return replace(super().ask(generation), instances=rows, groups=rows, groups_a_part=1)

    def tell(self, batch: Trajectories) -> UpdateReport:
        rows = len(batch.return_B)
        return UpdateReport(outcome=Outcome.CHANGED, cost=Cost(updates=2, update_seconds=rows))


@pytest.mark.parametrize("unit", ["episodes", "generated_tokens", "flops", "seconds"])
@pytest.mark.parametrize("generations", [2.51, 3.0])
def test_the_last_generation_is_cut_in_every_unit(tmp_path: Path, unit: Unit, generations: float) -> None:
    """One task instance in every row: all generations take the same, but for the time of a machine."""
    (tmp_path / "once").mkdir()
    once, _ = run(tmp_path / "once", updates=2, learner=Divisible)
    cost: Any = alike(once).train()["cost"]
    limit = (ROWS if unit in ("episodes", "seconds") else cost[unit]) * generations
    training, _ = run(tmp_path, learner=Divisible)
    alike(training)._budget = Budget(unit=unit, limit=limit * (1.02 if unit == "seconds" else 1))
    summary: Any = training.train()
    lines = records(tmp_path, "train")
    # Fewer rows share a prompt's pass: by operations they are a little dearer.
    assert summary["status"] == "completed"
    assert summary["budget"]["spent"] <= training._budget.limit * (1.05 if unit == "flops" else 1)
    last = ROWS if generations == 3 else ROWS // 2
    assert len(lines) == 3 and lines[-1]["episodes"] - lines[-2]["episodes"] == last
    assert [line.get("shortened") for line in lines] == [None, None, None if last == ROWS else 0.5]
    assert "eval/pass@1" in records(tmp_path, "eval")[-1] and summary["reason"] is None


def alike(training: Any) -> Any:
    """A run whose episodes are all of one turn, and whose answers are greedy and so of one length."""
    training._collector.task = chatter(longest=1)
    ask = training._learner.ask
    training._learner.ask = lambda generation: replace(
        ask(generation), instances=(0,) * ROWS, sampling=Sampling(temperature=0.0)
    )
    return training


@pytest.mark.parametrize(("limit", "spent"), [(6, 6), (7, 6), (5, 4), (1, 2)])
def test_a_budget_in_updates_ends_before_a_generation_that_would_exceed_it(
    tmp_path: Path, limit: float, spent: int
) -> None:
    """Two updates a generation, however short; the first generation is always run."""
    training, _ = run(tmp_path, updates=limit, learner=Divisible)
    summary: Any = training.train()
    assert summary["budget"]["spent"] == spent and summary["status"] == "completed"


@pytest.mark.parametrize("algorithm", ["eggroll", "cma_es", "scored_es", "grpo", "dapo", "ppo", "sft"])
def test_every_algorithm_ends_within_its_budget(
    tmp_path: Path, algorithm: str, capfd: pytest.CaptureFixture[str]
) -> None:
    training = small_run(tmp_path, algorithm, generations=2)
    training._budget = Budget(unit="episodes", limit=2.5 * EPISODES)
    summary: Any = training.train()
    whole = algorithm in ("dapo", "sft")  # fewer groups than a step needs; demonstrations are no rollouts
    spent = summary["budget"]["spent"]
    assert 2 * EPISODES <= spent <= 2.5 * EPISODES if whole else spent == 2.5 * EPISODES
    lines = [line for line in lines_of(tmp_path) if line["kind"] == "train"]
    assert whole or (lines[-1]["shortened"] == 0.5 and math.isfinite(lines[-1]["return_mean"]))
    assert ("of the budget is left" in capfd.readouterr().err) == (spent < 0.9 * 2.5 * EPISODES)


def test_a_resumed_run_cuts_the_same_generation(tmp_path: Path) -> None:
    """The budget is in operations, which are predicted from generations before the stop."""
    cost: Any = small_run(tmp_path / "measured", generations=2).train()["cost"]
    limit = 1.4 * cost["flops"]

    def budgeted(folder: Path, **options: Any) -> Any:
        made = small_run(folder, **options)
        made._budget = Budget(unit="flops", limit=limit)
        return made

    summary = budgeted(tmp_path / "whole").train()
    stopped = budgeted(tmp_path / "parts", wrap=lambda learner, _: _StopsAt(learner, 2))
    with pytest.raises(KeyError):
        stopped.train()
    again = budgeted(tmp_path / "parts")
    again.resume()
    again.train()
    assert outcome_of(tmp_path / "parts") == outcome_of(tmp_path / "whole")
    lines = [line for line in lines_of(tmp_path / "whole") if line["kind"] == "train"]
    assert len(lines) == 3 and lines[-1]["shortened"] == 0.5 and summary["budget"]["spent"] < 1.1 * limit
    finished = budgeted(tmp_path / "whole")
    finished.resume()
    assert finished._over  # and is not cut again
    let_go(finished)


class _StopsAt:
    def __init__(self, learner: Any, generation: int) -> None:
        self._learner, self._generation = learner, generation
        self.tell, self.state_dict = learner.tell, learner.state_dict

    def ask(self, generation: int) -> Any:
        if generation == self._generation:
            raise KeyError
        return self._learner.ask(generation)


class Wanting(Divisible):
    """Report a cost that fewer rows would not lower, as an evolution strategy does."""

    def ask(self, generation: int) -> RolloutPlan:
        return replace(super().ask(generation), generations_wanted=5)


@pytest.mark.parametrize(
    ("generations", "told"),
    [(5, ""), (4.5, "about 4 "), (4, "about 4 "), (1, "about 1 generation,")],
)
def test_a_budget_of_few_generations_is_said_once(
    tmp_path: Path, generations: float, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    training, _ = run(tmp_path, learner=Wanting)
    training._budget = Budget(unit="episodes", limit=generations * ROWS)
    notes: Any = training.train()["notes"]
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: the budget holds")]
    assert said == notes and len(said) == bool(told) and all(told in line for line in said)


def test_a_budget_of_less_than_a_generation_is_said_in_words() -> None:
    at, budget = RunState(generation=1, cost=Cost(episodes=200)), Budget(unit="episodes", limit=100)
    assert "holds less than one generation," in few_generations(at, budget, wanted=30, over=True)


def test_evolution_strategies_want_thirty_generations() -> None:
    assert eggroll().start(small_model(), 0).ask(0).generations_wanted == 30
    assert plan((0,)).generations_wanted == 0


def _step_of(model: LanguageModel, prompts: int, rows: float, return_PQ: torch.Tensor) -> torch.Tensor:
    before = model.network.lm_head.weight.detach().clone()
    learner = eggroll(prompts=prompts).start(model, 0)
    learner.tell(told(learner.ask(0).shortened(rows), return_PQ.flatten()))
    return (model.network.lm_head.weight.detach() - before) * SIGMA / RATE


def test_a_shorter_generation_of_an_evolution_strategy_is_one_of_fewer_prompts() -> None:
    return_PQ = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cut, small = _step_of(small_model(), 3, 16, return_PQ), _step_of(small_model(), 2, math.inf, return_PQ)
    assert torch.equal(cut, small) and float(cut.abs().max()) > 0

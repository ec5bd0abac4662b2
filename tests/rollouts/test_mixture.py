"""Several tasks in one run: who gets which instance, and that an episode among others is what it is alone."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from envs.demonstrator import task_demonstrations
from evotext.keys.instances import held_out_instances, train_instances
from evotext.models.language_model import LanguageModel
from evotext.rollouts.collector import Collector
from evotext.rollouts.mixture import Mixture, in_proportion, names_of
from evotext.rollouts.task import TextTask
from evotext.runner.evaluation import Evaluator, scores_by_task
from tests.rollouts.chatter import chatter, plan, with_frequent_ends
from tests.runner.small_runs import called_off, lines_of, outcome_of, small_run
from tests.small_models import small_model

ROWS = 40
SHARES = {"long": 3.0, "short": 1.0}


def two_tasks(shares: dict[str, float] | None = None, **options: Any) -> Mixture:
    """Tasks that differ in their limits and in what counts as success."""
    short = chatter(max_turns=1, longest=1, success_return=options.pop("success_return", 1.0))
    short.max_new_tokens = 2
    return Mixture(tasks={"long": chatter(longest=4), "short": short}, shares=shares, name=None, max_new_tokens=5)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return with_frequent_ends(small_model("llama"))


def test_instances_are_drawn_by_shares_and_by_nothing_but_their_seed() -> None:
    mixture, instances = two_tasks(SHARES), train_instances(0, 0, 4000)
    names = names_of(mixture, instances)
    assert Counter(names)["long"] == pytest.approx(3000, abs=3 * np.sqrt(4000 * 0.75 * 0.25))
    assert names_of(mixture, instances[::-1]) == names[::-1] and names_of(mixture, instances[7:8]) == names[7:8]
    assert [mixture.parts[name == "short"] for name in names] == mixture.of(instances)
    equal = Counter(names_of(two_tasks(), instances))
    assert equal["long"] == pytest.approx(2000, abs=3 * np.sqrt(1000))


@pytest.mark.parametrize("rows", [100, 7])
def test_an_episode_is_what_it_is_alone(model: LanguageModel, rows: int) -> None:
    """Equal to the last token, whatever else is in the plan: each task keeps its own limits and its own idea of success."""
    mixture, asked = two_tasks(SHARES), plan(rows=ROWS)
    together = Collector(model, mixture, rows=rows).collect(asked)
    names = names_of(mixture, asked.instances)
    assert set(names) == set(SHARES)
    assert together.success_B is not None
    for name, task in zip(SHARES, mixture.parts, strict=True):
        alone = Collector(model, task, rows=rows).collect(asked)
        own = [row for row in range(ROWS) if names[row] == name]
        width = int(alone.length_B[own].max())
        for field in ("tokens_BT", "policy_mask_BT", "turn_BT", "reward_BT"):
            assert torch.equal(getattr(together, field)[own, :width], getattr(alone, field)[own, :width]), field
        for field in ("length_B", "return_B", "ending_B", "overlong_B", "success_B"):
            assert torch.equal(getattr(together, field)[own], getattr(alone, field)[own]), field
    longest = [int(together.policy_mask_BT[row].sum()) for row in range(ROWS) if names[row] == "short"]
    assert max(longest) <= 2 and together.cost.episodes == ROWS


def test_scores_of_each_task_are_those_of_its_rows(model: LanguageModel) -> None:
    mixture = two_tasks(SHARES)
    batch = Collector(model, mixture, rows=100).collect(plan(rows=ROWS))
    names, returns = names_of(mixture, batch.plan.instances), batch.return_B.tolist()
    found = scores_by_task(batch, mixture)
    for name, threshold in (("long", 3.0), ("short", 1.0)):
        own = [value for value, of in zip(returns, names, strict=True) if of == name]
        assert found[name].mean_return == pytest.approx(np.mean(own))
        assert found[name].success == pytest.approx(np.mean([value >= threshold for value in own]))
    assert scores_by_task(batch, chatter()) == {}


def test_success_is_unknown_where_one_task_knows_none(model: LanguageModel) -> None:
    tasks = {"one": chatter(), "other": chatter("NoThreshold")}
    mixture = Mixture(tasks=tasks, shares=None, name="both", max_new_tokens=5)
    assert not mixture.knows_success and mixture.name == "both"
    batch = Collector(model, mixture, rows=100).collect(plan())
    assert batch.success_B is None and {score.success for score in scores_by_task(batch, mixture).values()} == {None}


@pytest.mark.parametrize("count", [1, 2, 10, 64, 101])
def test_a_measurement_has_instances_in_proportion(count: int) -> None:
    """The plain mean over its episodes is then the mean over the tasks by their shares."""
    mixture = two_tasks(SHARES)
    chosen = in_proportion(mixture, held_out_instances, count)
    counts = Counter(names_of(mixture, chosen))
    assert len(set(chosen)) == count
    assert all(abs(counts[name] - share * count) < 1 for name, share in mixture.shares.items())
    assert [i for i in held_out_instances(4 * count + 64) if i in chosen] == list(chosen), "the first ones, in order"
    assert in_proportion(chatter(), held_out_instances, count) == held_out_instances(count)


def test_an_evaluation_reports_each_task_and_their_mean_by_shares(model: LanguageModel) -> None:
    evaluator = Evaluator(episodes=16, points=1, temperature=0.0, samples=2)
    found = evaluator.measure(Collector(model, two_tasks(SHARES), rows=100), sampled=True)
    score = found.by_task
    assert found.mean_return == pytest.approx(0.75 * score["long"].mean_return + 0.25 * score["short"].mean_return)
    assert score["long"].success is not None and score["short"].success is not None
    assert found.success == pytest.approx(0.75 * score["long"].success + 0.25 * score["short"].success)


def test_a_race_of_members_is_run_by_one_task_for_each_instance(model: LanguageModel) -> None:
    members = plan(rows=8)
    asked = replace(members, instances=members.instances * 2, groups=members.groups * 2)
    batch = Collector(model, two_tasks(SHARES), rows=3).collect(asked)
    assert torch.equal(batch.turn_BT[:8, 0], batch.turn_BT[8:, 0])
    assert [t.instance for t in batch.transcripts] == [asked.instances[t.row] for t in batch.transcripts]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tasks": {}}, "tasks: expected one or more, got none"),
        ({"shares": {"a": 1.0}}, "shares: expected one of each of a, b, got a"),
        ({"shares": {"a": 1.0, "c": 1.0}}, "shares: expected one of each of a, b, got a, c"),
        ({"max_new_tokens": 8}, "max_new_tokens: expected the tasks' greatest, 5, got 8; .*: tasks.a.max_new_tokens"),
        ({"shares": {"a": 0.0, "b": 1.0}}, "greater than 0"),
    ],
)
def test_what_makes_no_mixture(changes: dict[str, Any], told: str) -> None:
    given = {"tasks": {"a": chatter(), "b": chatter()}, "shares": None, "name": None, "max_new_tokens": 5} | changes
    with pytest.raises(ValueError, match=told):
        Mixture(**given)


def test_a_run_logs_each_task_and_resumes_to_the_bit(tmp_path: Path) -> None:
    """Success and return of each, in training, in measurements and in the summary."""
    whole = small_run(tmp_path / "whole", mixture=True)
    whole.train()
    part = small_run(tmp_path / "part", mixture=True, callbacks=called_off(after=3))
    part.train()
    again = small_run(tmp_path / "part", mixture=True)
    again.resume()
    again.train()
    assert outcome_of(tmp_path / "part")["weights"] == outcome_of(tmp_path / "whole")["weights"]
    logged = {name for line in lines_of(tmp_path / "whole") for name in line}
    names = {f"{what}/{name}" for what in ("success", "return") for name in ("plain", "short")}
    assert names | {f"eval/{name}" for name in names} <= logged
    summary = outcome_of(tmp_path / "whole")["summary"]["eval"]["by_task"]
    assert summary.keys() == {"plain", "short"} and summary["plain"]["return_after"] is not None


def test_demonstrations_of_several_tasks_come_by_their_shares() -> None:
    tasks = {name: native(name) for name in ("Sort", "Logic")}
    mixture = Mixture(tasks=tasks, shares={"Sort": 0.8, "Logic": 0.2}, name=None, max_new_tokens=16)
    found = list(task_demonstrations(50, 3, task=mixture, solved=True))
    alone = {name: list(task_demonstrations(50, 3, task=task, solved=True)) for name, task in tasks.items()}
    of = [next(name for name, own in alone.items() if one in own) for one in found]
    assert 30 <= of.count("Sort") <= 48
    assert found == list(task_demonstrations(50, 3, task=mixture, solved=True))
    for name, own in alone.items():
        assert [one for one, task in zip(found, of, strict=True) if task == name] == own[: of.count(name)]


def native(name: str) -> TextTask:
    return TextTask(
        name=name,
        id=f"envs:evotext/{name}-v0",
        max_new_tokens=16,
        max_turns=1,
        success_return=None,
        strict=False,
        step_seconds=60.0,
        workers=0,
    )

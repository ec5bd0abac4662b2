"""Levels of difficulty: who is drawn, what is measured, that it is remembered, and that it helps where it should."""

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig

from evotext.cli.composing import compose_checked
from evotext.cli.errors import ConfigError
from evotext.cli.targets import build, task_at
from evotext.keys.instances import train_instances
from evotext.rollouts.collector import Collector
from evotext.rollouts.curriculum import Levels
from evotext.rollouts.task import TextTask
from evotext.runner.evaluation import Evaluator
from evotext.types import Cost, Ending, RolloutPlan, Sampling, Trajectories
from tests.rollouts.chatter import chatter
from tests.runner.small_runs import called_off, lines_of, outcome_of, small_run
from tests.small_models import small_model


@cache
def turns(longest: int) -> TextTask:
    return chatter(longest=longest, max_turns=longest)


def levels(values: tuple[int, ...] = (1, 2, 3, 4), decay: float = 0.9, **options: Any) -> Levels:
    given = {"task": turns(values[-1]), "at": lambda key, value: turns(value)} | options
    return Levels(key="env.longest", values=list(values), decay=decay, **given)


def batch_of(instances: tuple[int, ...], success: list[bool], faulty: tuple[int, ...] = ()) -> Trajectories:
    """Trajectories that hold outcomes alone."""
    plan = RolloutPlan(
        seed=0,
        generation=0,
        instances=instances,
        groups=tuple(range(len(instances))),
        sampling=Sampling(temperature=1.0),
    )
    rows, nothing = len(instances), torch.zeros(len(instances), 1)
    ending_B = torch.full((rows,), int(Ending.TASK))
    ending_B[list(faulty)] = int(Ending.RAISED)
    return Trajectories(
        plan=plan,
        tokens_BT=nothing.long(),
        length_B=torch.ones(rows).long(),
        policy_mask_BT=nothing.bool(),
        turn_BT=nothing.long(),
        reward_BT=nothing,
        return_B=torch.tensor(success).double(),
        success_B=torch.tensor(success),
        ending_B=ending_B,
        has_tokens_B=torch.ones(rows).bool(),
        overlong_B=torch.zeros(rows).bool(),
        cost=Cost(),
        transcripts=(),
    )


def test_levels_are_drawn_by_the_variance_of_their_success() -> None:
    curriculum, instances = levels(), train_instances(0, 0, 4000)
    assert curriculum.weights == [0.25] * 4, "nothing is known at first"
    curriculum.successes, curriculum.episodes = [98.0, 49.0, 24.0, 0.0], [98.0, 98.0, 98.0, 98.0]
    p = np.array([99, 50, 25, 1]) / 100
    assert curriculum.estimates == pytest.approx(p)
    assert curriculum.weights == pytest.approx(p * (1 - p) / (p * (1 - p)).sum())
    counts = Counter(curriculum.levels_of(instances))
    for level, share in enumerate(curriculum.weights):
        assert counts[level] == pytest.approx(4000 * share, abs=4 * np.sqrt(4000 * share))
    assert curriculum.levels_of(instances[5:9]) == curriculum.levels_of(instances)[5:9]
    assert curriculum.of(instances) == [curriculum.levels[level] for level in curriculum.levels_of(instances)]


def test_estimates_count_and_forget_and_leave_faults_out() -> None:
    curriculum, instances = levels((1, 2), decay=0.5), train_instances(0, 0, 40)
    of = curriculum.levels_of(instances)
    faulty = (0, 1)
    figures = curriculum.learn(batch_of(instances, [level == 0 for level in of], faulty))
    seen = [sum(own == level for row, own in enumerate(of) if row not in faulty) for level in (0, 1)]
    assert curriculum.episodes == seen and curriculum.successes == [seen[0], 0]
    assert figures["curriculum/share/1"] == figures["curriculum/share/2"] == 0.5, "those that the batch was drawn by"
    assert figures["curriculum/success/1"] == (seen[0] + 1) / (seen[0] + 2) == curriculum.estimates[0]
    again = curriculum.levels_of(instances)
    curriculum.learn(batch_of(instances, [False] * 40))
    for level in (0, 1):
        assert curriculum.episodes[level] == 0.5 * seen[level] + again.count(level)
    for _ in range(60):
        curriculum.learn(batch_of((), []))
    assert curriculum.estimates == pytest.approx([0.5, 0.5]), "what is not seen again is unknown again"


def test_measurements_are_of_the_task_as_it_is() -> None:
    """This holds for training's instances, too, where validation takes those."""
    curriculum, model = levels(), small_model("llama", torch.float32)
    for split in ("test", "validation"):
        evaluator = Evaluator(episodes=8, points=1, temperature=0.0, samples=2, split=split)
        found = evaluator.measure(Collector(model, curriculum, rows=20), sampled=True)
        alone = evaluator.measure(Collector(model, turns(4), rows=20), sampled=True)
        assert (found.mean_return, found.success, found.pass_at, found.sampled_return, found.mean_tokens) == (
            (alone.mean_return, alone.success, alone.pass_at, alone.sampled_return, alone.mean_tokens)
        )


def test_a_run_resumes_to_the_bit_logs_its_levels_and_charges_nothing_more(tmp_path: Path) -> None:
    for name, count in (("whole", None), ("part", 3)):
        small_run(
            tmp_path / name, levels=True, **({} if count is None else {"callbacks": called_off(after=count)})
        ).train()
    again = small_run(tmp_path / "part", levels=True)
    again.resume()
    again.train()
    whole, resumed = outcome_of(tmp_path / "whole"), outcome_of(tmp_path / "part")
    assert resumed["weights"] == whole["weights"] and resumed["metrics"] == whole["metrics"]
    small_run(tmp_path / "without").train()
    without = outcome_of(tmp_path / "without")
    for cost in ("cost", "evaluation_cost"):
        assert whole["summary"][cost]["episodes"] == without["summary"][cost]["episodes"]
    trained = [line for line in lines_of(tmp_path / "whole") if line["kind"] == "train"]
    assert trained[0]["curriculum/share/1"] == 0.5 and trained[-1]["curriculum/share/1"] != 0.5
    assert sum(trained[-1][f"curriculum/share/{value}"] for value in (1, 2)) == pytest.approx(1)


@pytest.mark.learning
@pytest.mark.parametrize("draw", range(10))
def test_levels_move_up_as_they_are_solved(draw: int, seed: int) -> None:
    """A learner whose skill grows by the gradient of success, in proportion to p (1 - p), the target being hopeless at first.

    With the curriculum the mean level that is drawn rises until the hardest is solved; the hardest alone teaches nothing, and
    levels drawn alike teach more slowly, in as many episodes.
    """

    def trained(values: tuple[int, ...], follows: bool) -> tuple[list[float], float]:
        rng, curriculum, skill, means = np.random.default_rng([seed, draw]), levels(values), 0.0, []
        for generation in range(60):
            instances = train_instances(1000 * seed + draw, generation, 32)
            of = [values[level] for level in curriculum.levels_of(instances)]
            p = 1 / (1 + np.exp(3.0 * np.array(of) - 3.0 - skill))
            if follows:
                curriculum.learn(batch_of(instances, (rng.random(32) < p).tolist()))
            skill += 1.5 * float((p * (1 - p)).mean())
            means.append(float(np.mean(of)))
        return means, 1 / (1 + np.exp(3.0 * 4 - 3.0 - skill))

    means, solved = trained((1, 2, 3, 4), follows=True)
    thirds = [np.mean(means[first : first + 15]) for first in (0, 15, 30, 45)]
    assert thirds == sorted(thirds) and thirds[-1] > thirds[0] + 1 and solved > 0.7, (thirds, solved)
    assert trained((4, 5), follows=False)[1] < 0.01  # 4 and, to make two, what is harder still
    assert trained((1, 2, 3, 4), follows=False)[1] < solved - 0.05


@pytest.fixture(autouse=True)
def _no_hydra_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)


def made(*words: str) -> Any:
    config = compose_checked("config", words).config
    task = build(config, "env")
    return build(config, "curriculum")(task=task, at=lambda key, value: task_at(config, key, value))


def test_the_configuration_makes_each_level_of_the_task() -> None:
    found = made(
        "env=recall", "env.delay=8", "curriculum=levels", "curriculum.key=env.delay", "curriculum.values=[1,4]"
    )
    assert [level.options["delay"] for level in found.levels] == [1, 4] and found.measured.options["delay"] == 8
    mixed = made(
        "env=[sort,recall]", "curriculum=levels", "curriculum.key=env.tasks.recall.delay", "curriculum.values=[1,4]"
    )
    assert [level.parts[1].options["delay"] for level in mixed.levels] == [1, 4] and list(mixed.shares) == [
        "sort",
        "recall",
    ]
    assert isinstance(made("env=recall"), TextTask)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["curriculum=levels"], "curriculum.key: expected a value, got none"),
        (["curriculum.key=env.dellay"], "curriculum.key: expected a key of the task .* got 'env.dellay'"),
        (["curriculum.key=seed"], "curriculum.key: expected a key of the task .* got 'seed'"),
        (["curriculum.values=[1]"], "values: expected two or more, all different, got \\[1\\]"),
        (["curriculum.values=[1,1]"], "values: expected two or more, all different"),
        (["curriculum.values=[1,-1]"], "delay"),
    ],
)
def test_mistakes_are_one_line(words: list[str], told: str) -> None:
    defaults = ["curriculum=levels", "curriculum.key=env.delay", "curriculum.values=[1,2]"]
    with pytest.raises((ConfigError, ValueError), match=told) as raised:
        made("env=recall", *(defaults if words[0] != "curriculum=levels" else ()), *words)
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="knows success"):
        levels(at=lambda key, value: chatter("NoThreshold"))

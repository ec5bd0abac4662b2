"""Held-out measurement: pass@k against counting subsets, and what a measurement runs and costs."""

import itertools
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from evotext.keys.instances import held_out_instances
from evotext.rollouts.collector import Collector
from evotext.rollouts.task import Task
from evotext.run_folder.reader import read_run
from evotext.runner.evaluation import Evaluator
from evotext.runner.pass_at_k import pass_at_k
from evotext.types import RolloutPlan, Trajectories
from tests.rollouts.chatter import chatter
from tests.runner.small_runs import lines_of, small_run
from tests.small_models import small_model


@pytest.mark.parametrize("samples", [1, 2, 5, 8])
def test_pass_at_k_is_the_share_of_subsets_with_a_success(samples: int) -> None:
    for successes in range(samples + 1):
        answers = [i < successes for i in range(samples)]
        found = pass_at_k([successes], samples)
        assert list(found) == [k for k in (1, 2, 4, 8) if k <= samples]
        for k, share in found.items():
            subsets = list(itertools.combinations(answers, k))
            assert share == pytest.approx(float(Fraction(sum(map(any, subsets)), len(subsets))))


def test_pass_at_k_is_the_mean_over_instances_and_unbiased() -> None:
    """Over every outcome of four answers that each succeed with probability 0.3, the mean is 1 - 0.7^k."""
    assert pass_at_k([0, 4], 4) == {1: 0.5, 2: 0.5, 4: 0.5}
    assert list(pass_at_k([1], 32)) == [1, 2, 4, 8, 16, 32] and pass_at_k([1, 3], 32)[1] == pytest.approx(4 / 64)
    expected = dict.fromkeys((1, 2, 4), 0.0)
    for outcome in itertools.product((0, 1), repeat=4):
        weight = 0.3 ** sum(outcome) * 0.7 ** (4 - sum(outcome))
        for k, share in pass_at_k([sum(outcome)], 4).items():
            expected[k] += weight * share
    assert expected == pytest.approx({k: 1 - 0.7**k for k in (1, 2, 4)})


class Watched(Collector):
    """Keeps the plans and the batches, and says which rows succeeded."""

    def __init__(self) -> None:
        super().__init__(small_model("llama", torch.float32), chatter(), rows=8)
        self.batches: list[Trajectories] = []

    def collect(self, plan: RolloutPlan, task: Task | None = None) -> Trajectories:
        batch = super().collect(plan, task)
        batch.success_B.copy_(torch.arange(len(plan.instances)) % 4 == 0)
        self.batches.append(batch)
        return batch


def test_sampled_answers_are_of_the_same_instances_and_are_costed() -> None:
    collector = Watched()
    evaluator = Evaluator(episodes=6, points=1, temperature=0.0, samples=4)
    evaluation = evaluator.measure(collector, sampled=True)
    greedy, answers = collector.batches
    assert greedy.plan.instances == held_out_instances(6) and greedy.plan.sampling.temperature == 0.0
    assert answers.plan.instances == tuple(i for i in held_out_instances(6) for _ in range(4))
    assert answers.plan.sampling.temperature == 1.0 and answers.plan.split == greedy.plan.split == "test"
    assert evaluation.pass_at == {1: 0.25, 2: 0.5, 4: 1.0}  # one success in four answers to each
    assert evaluation.sampled_return == float(answers.return_B.mean())
    assert evaluation.cost == greedy.cost + answers.cost and evaluation.cost.episodes == 30
    assert evaluation.transcripts == greedy.transcripts
    written = answers.tokens_BT[answers.plan.groups.index(0) : 4]
    assert len(written.unique(dim=0)) > 1, "answers to one instance are drawn apart from each other"


@pytest.mark.parametrize(("samples", "sampled"), [(4, False), (0, True)])
def test_nothing_is_sampled_unless_asked_for(samples: int, sampled: bool) -> None:
    collector = Watched()
    evaluator = Evaluator(episodes=6, points=1, temperature=0.0, samples=samples)
    evaluation = evaluator.measure(collector, sampled=sampled)
    assert len(collector.batches) == 1
    assert evaluation.pass_at == {} and evaluation.sampled_return is None


def test_further_tasks_are_measured_at_the_ends_or_always_and_costed() -> None:
    """On held-out instances, greedily, as they are alone; they leave the main score as it was."""
    model = small_model("llama", torch.float32)
    far = chatter(longest=9, max_turns=9)
    plain = Evaluator(episodes=6, points=1, temperature=0.0, samples=0).measure(
        Collector(model, chatter(), rows=8), sampled=True
    )
    alone = Evaluator(episodes=6, points=1, temperature=0.0, samples=0).measure(
        Collector(model, far, rows=8), sampled=True
    )
    for also_at, measured in (("ends", {True: ["far"], False: []}), ("points", {True: ["far"], False: ["far"]})):
        evaluator = Evaluator(episodes=6, points=1, temperature=0.0, samples=0, also={"far": far}, also_at=also_at)
        for sampled, names in measured.items():
            found = evaluator.measure(Collector(model, chatter(), rows=8), sampled=sampled)
            assert list(found.by_task) == names and found.score == plain.score
            if names:
                assert (found.by_task["far"].mean_return, found.by_task["far"].success) == (
                    alone.mean_return,
                    alone.success,
                )
            assert found.cost.episodes == 6 + 6 * len(names) and found.episodes == 6


def test_a_run_records_further_tasks_from_both_ends(tmp_path: Path) -> None:
    """The curve has the first and the last; the summary both; the reader finds them; the budget is not charged."""
    evaluator = Evaluator(episodes=4, points=2, temperature=0.0, samples=0, also={"far": chatter(longest=3)})
    small_run(tmp_path, generations=4, evaluator=evaluator).train()
    lines = [line for line in lines_of(tmp_path) if line["kind"] == "eval"]
    assert ["eval/return/far" in line for line in lines] == [True, False, True]
    record = read_run(tmp_path)
    assert record.by_task_before["far"]["return"] == lines[0]["eval/return/far"]
    assert record.by_task_after["far"]["success"] == lines[-1]["eval/success/far"]
    assert record.cost["episodes"] == 48 and record.cost["evaluation_episodes"] >= 4 * 3 + 4 * 2

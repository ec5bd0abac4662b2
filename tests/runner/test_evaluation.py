"""Held-out measurement: pass@k against counting subsets, and what a measurement runs and costs."""

import itertools
from fractions import Fraction

import pytest
import torch

from evotext.keys.instances import held_out_instances
from evotext.rollouts.collector import Collector
from evotext.runner.evaluation import Evaluator
from evotext.runner.pass_at_k import pass_at_k
from evotext.types import RolloutPlan, Trajectories
from tests.rollouts.test_collector import chatter
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

    def collect(self, plan: RolloutPlan) -> Trajectories:
        batch = super().collect(plan)
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
    assert evaluation.trajectories is greedy
    written = answers.tokens_BT[answers.plan.groups.index(0) : 4]
    assert len(written.unique(dim=0)) > 1, "answers to one instance are drawn apart from each other"


@pytest.mark.parametrize(("samples", "sampled"), [(4, False), (0, True)])
def test_nothing_is_sampled_unless_asked_for(samples: int, sampled: bool) -> None:
    collector = Watched()
    evaluator = Evaluator(episodes=6, points=1, temperature=0.0, samples=samples)
    evaluation = evaluator.measure(collector, sampled=sampled)
    assert len(collector.batches) == 1
    assert evaluation.pass_at == {} and evaluation.sampled_return is None

"""Blocks of members with task instances of their own, and pairs that sample with the same random numbers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evotext.keys.instances import train_instances
from evotext.rollouts.collector import Collector
from evotext.types import RolloutPlan
from optimizers.fitness_shaping import centered_ranks, raw, task_z_score, z_score
from optimizers.perturbations import LowRank
from tests.optimizers.generations import POPULATION, PROMPTS, RATE, SIGMA, eggroll, told
from tests.rollouts.chatter import chatter, with_frequent_ends
from tests.small_models import small_model

BLOCK = 4
SHAPES = [raw, z_score, centered_ranks, task_z_score]


def returns(blocks: int = POPULATION // BLOCK) -> Tensor:
    """(G, M, Q), with ties."""
    drawn = torch.randn(blocks, BLOCK, PROMPTS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return drawn.round(decimals=1)


def by_hand(shape: Callable[[Tensor], Tensor], return_GMQ: Tensor) -> list[float]:
    """The weights of all members, one number after another."""
    centred, fitness = [], []
    for block in return_GMQ.tolist():
        levels = [sum(row[q] for row in block) / len(block) for q in range(len(block[0]))]
        centred.append([[r - level for r, level in zip(row, levels, strict=True)] for row in block])
        fitness.append([sum(row) / len(row) for row in block])
    if shape is raw:
        return [f for block in fitness for f in block]
    if shape is centered_ranks:
        return [
            (sum(g < f for g in block) + (sum(g == f for g in block) - 1) / 2) / (len(block) - 1) - 0.5
            for block in [[round(f, 9) for f in block] for block in fitness]
            for f in block
        ]
    apart = [f - sum(block) / len(block) for block in fitness for f in block]
    each = apart if shape is z_score else [c for block in centred for row in block for c in row]
    spread = (sum(c * c for c in each) / len(each)) ** 0.5
    return [c / spread for c in apart]


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_are_those_of_a_loop_over_blocks(shape: Callable[[Tensor], Tensor]) -> None:
    expected = torch.tensor(by_hand(shape, returns()), dtype=torch.float64).view(-1, BLOCK)
    torch.testing.assert_close(shape(returns()), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", [z_score, centered_ranks, task_z_score])
def test_a_block_with_hard_instances_is_not_compared_with_one_with_easy_ones(shape: Callable[[Tensor], Tensor]) -> None:
    levels = torch.tensor([5.0, -3.0])[:, None, None]
    torch.testing.assert_close(shape(returns() + levels), shape(returns()), rtol=0, atol=1e-7)


def test_each_block_has_its_own_instances() -> None:
    plan = eggroll(members_per_instance=BLOCK).start(small_model(), 4).ask(6)
    drawn = train_instances(4, 6, PROMPTS * 2)
    assert len(set(drawn)) == 2 * PROMPTS
    assert plan.members == tuple(m for m in range(POPULATION) for _ in range(PROMPTS))
    assert plan.instances == drawn[:PROMPTS] * BLOCK + drawn[PROMPTS:] * BLOCK
    assert plan.groups == (0, 1, 2) * BLOCK + (3, 4, 5) * BLOCK
    assert plan.streams is None


def step_of(
    rows: float = float("inf"), **changes: Any
) -> tuple[dict[str, Tensor], dict[str, float], list[dict[str, Tensor]]]:
    """The change of every parameter, figures, and the unit noise of every member."""
    model = small_model()
    before = {name: parameter.detach().clone() for name, parameter in model.network.named_parameters()}
    learner = eggroll(**changes).start(model, 0)
    plan = learner.ask(0).shortened(rows)
    assert plan.noise is not None and plan.members is not None
    one_hots = F.one_hot(torch.arange(POPULATION)).double()
    members = [dict(plan.noise.combine(one_hot)) for one_hot in one_hots]
    count = plan.members[-1] + 1
    report = learner.tell(told(plan, returns()[: count // BLOCK].flatten()))
    return {n: p.detach() - before[n] for n, p in model.network.named_parameters()}, report.metrics, members


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("rows", [float("inf"), POPULATION * PROMPTS - 1])
def test_the_step_is_the_written_out_sum(shape: Callable[[Tensor], Tensor], antithetic: bool, rows: float) -> None:
    """In float64 to 1e-7. A generation for which the budget has too little left is one of whole blocks, and fewer members."""
    change, metrics, members = step_of(rows, members_per_instance=BLOCK, fitness_shaping=shape, antithetic=antithetic)
    ran = returns() if rows == float("inf") else returns()[:1]
    weights = by_hand(shape, ran)
    for name, step in change.items():
        expected = sum(w * member[name] for w, member in zip(weights, members, strict=False))
        torch.testing.assert_close(step, expected * RATE / (len(weights) * SIGMA), rtol=0, atol=1e-7)
    dead = (ran == ran[:, :1]).all(1).double().mean()
    assert metrics["frac_tasks_without_signal"] == pytest.approx(float(dead))
    assert metrics["fitness/best"] == pytest.approx(float(ran.mean(-1).max()))


def test_one_block_of_all_is_as_if_there_were_none() -> None:
    model, numbers = small_model(), returns().flatten()
    weights = []
    for block in (None, POPULATION):
        model = small_model()
        learner = eggroll(members_per_instance=block).start(model, 0)
        plan = learner.ask(0)
        learner.tell(told(plan, numbers))
        weights.append((plan.instances, plan.groups, model.network.lm_head.weight.detach()))
    assert weights[0][:2] == weights[1][:2] and torch.equal(weights[0][2], weights[1][2])


@pytest.mark.parametrize("shared", [True, False])
def test_the_expectation_is_the_gradient_of_the_mean_over_instances(shared: bool) -> None:
    """The return is linear in one matrix with a slope of its instance's own, and a level that is much larger. The mean of
    many pseudo-gradients is the mean slope, to five standard errors, whether pairs share instances or not.
    """
    model, pairs, generations = small_model(), 32, 60
    name = "lm_head.weight"
    hyper = eggroll(
        population=2 * pairs,
        prompts=1,
        members_per_instance=None if shared else 2,
        perturbation=LowRank(rank=1, vectors="frozen"),
        fitness_shaping=raw,
    )
    learner = hyper.start(model, 3)
    slope_OI = torch.ones_like(model.network.lm_head.weight, dtype=torch.float64)
    found = []
    for generation in range(generations):
        plan = learner.ask(generation)
        assert plan.noise is not None and plan.members is not None
        weight_P = torch.zeros(2 * pairs, dtype=torch.float64)
        along = []  # of each pair: how far its first member has gone along the slope
        for pair in range(pairs):
            weight_P.zero_()[2 * pair] = 1.0
            along.append(float((dict(plan.noise.combine(weight_P))[name].double() * slope_OI).sum()))
        instance = torch.tensor([i // 2 % 1001 / 500 for i in plan.instances], dtype=torch.float64)  # mean 1
        sign = torch.tensor([1.0 - 2 * (member % 2) for member in plan.members])
        far = torch.tensor(along, dtype=torch.float64).repeat_interleave(2) * sign * SIGMA
        before = model.network.lm_head.weight.detach().clone()
        learner.tell(told(plan, instance * far + 100 * instance))
        step = (model.network.lm_head.weight.detach() - before) / RATE
        found.append(float((step * slope_OI).sum()) / slope_OI.numel())
    drawn = torch.tensor(found, dtype=torch.float64)
    error = float(drawn.std()) / generations**0.5
    assert abs(float(drawn.mean()) - 1) < 5 * error
    assert error < 0.15


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"members_per_instance": 3}, "a divisor of population=8"),
        ({"members_per_instance": 16}, "a divisor of population=8"),
        ({"members_per_instance": 1}, "members_per_instance"),
        ({"population": 9, "antithetic": True, "members_per_instance": 3}, "even"),
        ({"population": 6, "members_per_instance": 3}, "members_per_instance: expected an even number"),
        ({"common_random_numbers": True, "temperature": 0.0}, "temperature=0"),
        ({"common_random_numbers": True, "antithetic": False}, "antithetic=false"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        eggroll(**changes)


def sampled(common: bool, rows: int = 100, **changes: Any) -> tuple[RolloutPlan, list[list[int]]]:
    """A generation of two pairs that noise hardly moves, and what the policy wrote in each row."""
    model = with_frequent_ends(small_model("llama", torch.float32))
    frozen = LowRank(rank=1, vectors="frozen")
    hyper = eggroll(sigma=1e-12, prompts=2, population=4, common_random_numbers=common, perturbation=frozen, **changes)
    plan = hyper.start(model, 0).ask(5)
    batch = Collector(model, chatter(longest=2), rows=rows).collect(plan)
    return plan, [batch.tokens_BT[row][batch.policy_mask_BT[row]].tolist() for row in range(len(plan.instances))]


@pytest.mark.parametrize("block", [None, 2])
def test_a_pair_without_noise_writes_the_same_with_common_random_numbers(block: int | None) -> None:
    """And another pair something else, or there would be nothing to average; without the option the pair differs, too."""
    _, together = sampled(True, members_per_instance=block)
    assert together[0:2] == together[2:4] and together[4:6] == together[6:8]
    assert together[0:2] != together[4:6] and together[0] != together[1]
    _, apart = sampled(False, members_per_instance=block)
    assert apart[0:2] != apart[2:4] and apart[4:6] != apart[6:8]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_common_random_numbers_do_not_depend_on_the_batches(rows: int) -> None:
    assert sampled(True, rows)[1] == sampled(True)[1]


def test_a_shortened_plan_keeps_its_streams() -> None:
    plan, _ = sampled(True)
    assert plan.streams == (0, 1, 0, 1, 2, 3, 2, 3)
    assert plan.shortened(4).streams == (0, 0, 2, 2)

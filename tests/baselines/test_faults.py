"""A run is not spoilt by empty episodes, returns that are no numbers or optimizers that cannot be used; and metrics."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from evotext.policy.advantages import group_advantages
from evotext.types import Outcome, Trajectories
from tests.baselines.one_step import (
    assert_same,
    change,
    collected,
    fresh_model,
    grpo,
    ppo,
    weights,
    written_out_gradient,
)


def paid(batch: Trajectories, row: int, reward: float) -> Trajectories:
    """The same batch, one row's last action paid otherwise."""
    reward_BT, return_B = batch.reward_BT.clone(), batch.return_B.clone()
    reward_BT[row, int(batch.policy_mask_BT[row].nonzero()[-1])] = reward
    return_B[row] = reward
    return replace(batch, reward_BT=reward_BT, return_B=return_B)


@pytest.mark.parametrize("make", [grpo, ppo])
def test_an_episode_without_actions_leaves_every_figure_finite(make: Any) -> None:
    model = fresh_model()
    algorithm = make(micro_rows=1).start(model, 0)
    batch = collected(algorithm, model)
    mask_BT = batch.policy_mask_BT.clone()
    mask_BT[2] = False
    report = algorithm.tell(replace(batch, policy_mask_BT=mask_BT))
    assert report.outcome is Outcome.CHANGED
    assert [name for name, value in report.metrics.items() if not math.isfinite(value)] == []


@pytest.mark.parametrize("make", [grpo, ppo])
def test_a_batch_without_actions_changes_nothing(make: Any) -> None:
    model = fresh_model()
    before = weights(model)
    algorithm = make().start(model, 0)
    batch = collected(algorithm, model)
    report = algorithm.tell(replace(batch, policy_mask_BT=torch.zeros_like(batch.policy_mask_BT)))
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))
    assert report.outcome is Outcome.NO_SIGNAL and report.cost.updates == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("make", [grpo, ppo])
def test_a_return_that_is_no_number_keeps_the_weights_finite_and_the_rest_learns(make: Any, bad: float) -> None:
    model = fresh_model()
    algorithm = make().start(model, 0)
    before = weights(model)
    report = algorithm.tell(paid(collected(algorithm, model), 1, bad))
    assert report.outcome is Outcome.CHANGED
    moved = change(before, model)
    assert all(bool(m.isfinite().all()) for m in moved) and any(bool(m.ne(0).any()) for m in moved)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("baseline", ["std", "none", "leave_one_out", "batch", "batch_std", "best"])
def test_a_return_that_is_no_number_loses_its_own_row_alone(baseline: str, bad: float) -> None:
    """It holds for a group as for a whole batch; the divisor of `constant` stays."""
    model, reference = fresh_model(), fresh_model()
    algorithm = grpo(baseline=baseline, normalisation="constant", max_tokens=20).start(model, 0)
    before = weights(model)
    batch = paid(collected(algorithm, model), 1, bad)
    algorithm.tell(batch)
    kept_B = torch.arange(12) != 1
    groups = torch.tensor(batch.plan.groups)
    advantage_B = torch.zeros(12, dtype=torch.float64)
    advantage_B[kept_B] = group_advantages(batch.return_B[kept_B], groups[kept_B], baseline)  # type: ignore[arg-type]
    weight_BT = (advantage_B / (12 * 20))[:, None] * batch.policy_mask_BT
    assert_same(change(before, model), written_out_gradient(reference, batch, weight_BT))


def test_fewer_episodes_than_minibatches_may_be_left() -> None:
    model = fresh_model()
    algorithm = ppo(minibatches=12).start(model, 0)
    batch = collected(algorithm, model)
    mask_BT = batch.policy_mask_BT.clone()
    mask_BT[3:] = False
    assert algorithm.tell(replace(batch, policy_mask_BT=mask_BT)).cost.updates == 3


@pytest.mark.parametrize("make", [grpo, ppo])
def test_a_gradient_that_is_not_finite_is_dropped_and_counted(make: Any) -> None:
    model = fresh_model()
    algorithm = make().start(model, 0)
    batch = collected(algorithm, model)
    before = weights(model)
    handle = next(model.network.parameters()).register_hook(lambda gradient: gradient * math.nan)
    report = algorithm.tell(batch)
    handle.remove()
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))
    assert report.metrics["nonfinite_gradients"] == 1.0 and report.outcome is Outcome.NOT_FINITE
    assert "grad_norm" not in report.metrics
    assert algorithm.tell(batch).outcome is Outcome.CHANGED, "the next step is as if nothing had happened"


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.SparseAdam])
@pytest.mark.parametrize("make", [grpo, ppo])
def test_optimizers_that_gradients_cannot_drive_are_refused_at_once(make: Any, kind: Any) -> None:
    with pytest.raises(ValueError, match="optimizer: expected one that takes a step"):
        make(optimizer=partial(kind, lr=0.1))


@pytest.mark.parametrize("make", [grpo, ppo])
@pytest.mark.parametrize("bound", [0.5, 1.0, math.inf, math.nan])
def test_a_dual_clip_lies_above_one(make: Any, bound: float) -> None:
    with pytest.raises(ValueError, match="dual_clip"):
        make(dual_clip=bound)


@pytest.mark.parametrize("make", [grpo, ppo])
@pytest.mark.parametrize("steps", [{}, {"epochs": 2, "minibatches": 2}])
@pytest.mark.parametrize("old_logprobs", ["sampler", "trainer"])
def test_the_gap_is_between_the_sampler_and_the_same_weights(
    make: Any, steps: dict[str, int], old_logprobs: str
) -> None:
    """However far the inner steps move the policy, the gap is what it was before them."""
    model = fresh_model()
    algorithm = make(optimizer=partial(torch.optim.SGD, lr=5.0), old_logprobs=old_logprobs, **steps).start(model, 0)
    batch = collected(algorithm, model)
    assert batch.logprob_BT is not None
    shifted = torch.where(batch.policy_mask_BT, batch.logprob_BT + 0.25, 0.0)
    metrics = algorithm.tell(replace(batch, logprob_BT=shifted)).metrics
    assert metrics["sampling/logp_difference"] == pytest.approx(0.25, abs=1e-5)
    assert metrics["sampling/logp_difference_max"] == pytest.approx(0.25, abs=1e-5)


@pytest.mark.parametrize("make", [grpo, ppo])
def test_recomputed_log_probabilities_take_the_sampler_out_of_the_ratio(make: Any) -> None:
    """A sampler that is off by a constant changes nothing once the trainer's own log-probabilities are the old ones."""
    steps = {"epochs": 2, "minibatches": 2, "old_logprobs": "trainer", "optimizer": partial(torch.optim.SGD, lr=0.1)}
    moved = []
    for off in (0.0, 0.4):
        model = fresh_model()
        algorithm = make(**steps).start(model, 0)
        batch = collected(algorithm, model)
        assert batch.logprob_BT is not None
        before = weights(model)
        algorithm.tell(replace(batch, logprob_BT=batch.logprob_BT + off * batch.policy_mask_BT))
        moved.append(change(before, model))
    for a, b in zip(*moved, strict=True):
        assert torch.equal(a, b)


def test_metrics_that_share_a_name_with_trl_mean_the_same() -> None:
    model = fresh_model()
    algorithm = grpo().start(model, 0)
    batches = [collected(algorithm, model, generation) for generation in range(2)]
    reports = [algorithm.tell(batch) for batch in batches]
    returns_QG = batches[0].return_B.view(4, 3)
    assert reports[0].metrics["reward_std"] == pytest.approx(float(returns_QG.std(1).mean()))
    total = sum(int(batch.length_B.sum()) for batch in batches)
    assert reports[1].metrics["num_tokens"] == total  # of the run so far
    restored = grpo().start(fresh_model(), 0)
    restored.load_state_dict(algorithm.state_dict())
    assert restored.tell(batches[0]).metrics["num_tokens"] == total + int(batches[0].length_B.sum())


def test_the_greatest_gap_is_that_of_a_single_token() -> None:
    model = fresh_model()
    algorithm = grpo(micro_rows=1).start(model, 0)
    batch = collected(algorithm, model)
    assert batch.logprob_BT is not None
    logprob_BT = batch.logprob_BT.clone()
    spread = batch.return_B.view(4, 3).std(1).argmax()  # a row that carries a signal
    row = int(3 * spread)
    logprob_BT[row, int(batch.policy_mask_BT[row].nonzero()[0])] += 2.0
    metrics = algorithm.tell(replace(batch, logprob_BT=logprob_BT)).metrics
    assert metrics["sampling/logp_difference_max"] == pytest.approx(2.0, abs=1e-5)
    assert metrics["sampling/logp_difference"] < 1.0


def test_the_value_head_steps_at_its_own_rate() -> None:
    """Two rates, plain gradient descent: the head's steps are as their rates, the language model's are the same."""
    heads, trunks = [], []
    for rate in (0.5, 1.5):
        model = fresh_model()
        before = weights(model)
        algorithm = ppo(value_learning_rate=rate).start(model, 0)
        algorithm.tell(collected(algorithm, model))
        heads.append(algorithm.critic.head.linear.weight.detach().clone())  # it began at zero
        trunks.append(change(before, model))
    assert heads[0].ne(0).any()
    torch.testing.assert_close(heads[1], 3 * heads[0])
    assert all(torch.equal(a, b) for a, b in zip(*trunks, strict=True))

"""PPO's critic with a trunk of its own, its warm-up, and the controller of the KL's coefficient."""

import copy
import dataclasses
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from baselines.inner_loop import Figures
from baselines.kl_controller import KLController
from evotext.optimization.schedules import Constant, Linear
from evotext.policy.actions import actions_of
from evotext.types import Outcome
from tests.baselines.one_step import change, collected, fresh_model, ppo, weights

OWN = {"value_trunk": "own", "detach_value": False}
ADAM = partial(torch.optim.AdamW, lr=1e-2)
NONE_FOLLOWS = torch.zeros(12, dtype=torch.bool)


def trunk_of(algorithm: Any) -> list[Tensor]:
    return [p.detach().clone() for p in algorithm.critic.trunk.parameters()]


def test_a_trunk_of_its_own_is_trained_by_the_value_loss_and_the_policy_is_not() -> None:
    """Written out: half the squared error of the head on the copy's states; the policy steps as without a critic."""
    model, alone = fresh_model(), fresh_model()
    before = weights(model)
    algorithm = ppo(**OWN, value_coefficient=0.7, value_clip=None, whiten=False, gae_lambda=1.0).start(model, 0)
    trunk_before = trunk_of(algorithm)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        algorithm.critic.head.linear.weight.normal_(generator=generator)
    head = algorithm.critic.head.linear.weight.detach().clone()[0].double()
    batch = collected(algorithm, model)
    judged = algorithm.judge(actions_of(batch, model.device), NONE_FOLLOWS, Figures())
    target = judged.target_BN[judged.actions.mask_BN]
    algorithm.update(judged, generation=0, value_only=False, figures=Figures())

    reference = fresh_model().network.base_model
    loss, count = torch.zeros((), dtype=torch.float64), int(batch.policy_mask_BT.sum())
    for row in range(12):
        ids = batch.tokens_BT[row : row + 1, : int(batch.length_B[row])]
        hidden = reference(input_ids=ids).last_hidden_state[0]
        for n, t in enumerate(batch.policy_mask_BT[row].nonzero()[:, 0].tolist()):
            value = (
                hidden[t - 1].double() @ head / 32
            )  # the hidden size; before the first batch a value is what the head says
            assert float(judged.value_BN[row, n]) == pytest.approx(float(value.detach()), abs=1e-5)
            wanted = (float(judged.target_BN[row, n]) - target.mean()) / target.std(unbiased=False)
            loss = loss + 0.7 * 0.5 * (value - wanted) ** 2 / count
    loss.backward()
    moved = [a - b for a, b in zip(trunk_before, trunk_of(algorithm), strict=True)]
    expected = [p.grad for p in reference.parameters() if p.grad is not None]
    for got, wanted in zip(moved, expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-3)

    without = ppo(**OWN, value_coefficient=0.0, value_clip=None, whiten=False, gae_lambda=1.0).start(alone, 0)
    with torch.no_grad():
        without.critic.head.linear.weight.copy_(head[None].float())
    without.tell(batch)
    for a, b in zip(change(before, model), change(before, alone), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-7)


def test_a_trunk_of_its_own_goes_through_a_checkpoint_and_is_charged() -> None:
    model, other = fresh_model(), fresh_model()
    first, second = (
        ppo(**OWN, optimizer=ADAM, kl_coefficient=0.1, kl_target=0.5, kl_horizon=20).start(own, 0)
        for own in (model, other)
    )
    with FlopCounterMode(display=False) as counter:
        batch = collected(first, model)
        cost = batch.cost + first.tell(batch).cost
    assert cost.flops == pytest.approx(counter.get_total_flops(), rel=0.01)  # but for the value head's own vector
    other.network.load_state_dict(model.network.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for algorithm, own in ((first, model), (second, other)):
        algorithm.tell(collected(algorithm, own, 1))
    assert first._kl.coefficient == second._kl.coefficient != 0.1
    assert any(a.ne(b).any() for a, b in zip(trunk_of(first), weights(fresh_model()), strict=False))
    for a, b in zip(weights(model) + trunk_of(first), weights(other) + trunk_of(second), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("trunk", ["shared", "own"])
def test_the_values_warm_up_moves_no_policy(trunk: str) -> None:
    """Two generations of the value alone, entropy and all else left out; the third moves the policy."""
    model = fresh_model()
    algorithm = ppo(
        value_trunk=trunk, detach_value=False, value_warm_up=2, optimizer=ADAM, entropy_coefficient=0.1, epochs=16
    ).start(model, 0)  # fmt: skip
    begin = weights(model)
    losses = []
    first = collected(algorithm, model, 0)
    for generation in range(3):
        assert all(torch.equal(a, b) for a, b in zip(begin, weights(model), strict=True))
        head = algorithm.critic.head.linear.weight.detach().clone()
        batch = dataclasses.replace(first, plan=dataclasses.replace(first.plan, generation=generation))
        report = algorithm.tell(batch)
        losses.append(report.metrics["value_loss"])
        assert report.outcome is Outcome.CHANGED and algorithm.critic.head.linear.weight.ne(head).any()
    assert any(a.ne(b).any() for a, b in zip(begin, weights(model), strict=True))
    assert losses[1] < losses[0]


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"detach_value: expected false"):
        ppo(value_trunk="own", detach_value=True)
    with pytest.raises(ValueError, match=r"kl_target: expected null with kl_coefficient=0"):
        ppo(kl_target=6.0)
    with pytest.raises(ValueError, match=r"kl_target: expected null with a kl_schedule"):
        ppo(kl_coefficient=0.1, kl_target=6.0, kl_schedule=Linear(generations=None, end=0.5, warm_up=0))
    model, algorithm = fresh_model(), ppo(**OWN)
    model.network.base_model_prefix = "nothing"  # a network whose trunk cannot be told from itself
    with pytest.raises(ValueError, match=r"value_trunk: expected shared"):
        algorithm.start(model, 0)


def test_the_controller_by_hand() -> None:
    """Target 2, horizon 100, 50 episodes: errors 0.1, clipped 0.2 and clipped -0.2; without a target nothing."""
    controller = KLController(0.5, schedule=Constant(), target=2.0, horizon=100)
    for kl, expected in ((2.2, 0.5 * 1.05), (9.0, 0.5 * 1.05 * 1.1), (0.0, 0.5 * 1.05 * 1.1 * 0.9), (2.0, None)):
        before = controller.coefficient
        controller.follow(kl, 50)
        assert controller.coefficient == pytest.approx(before if expected is None else expected)
    fixed = KLController(0.5, schedule=Constant(), target=None, horizon=100)
    fixed.follow(9.0, 50)
    assert fixed.coefficient == 0.5


def test_the_penalty_is_taken_off_each_token_and_the_coefficient_follows_the_episodes_kl() -> None:
    """A policy that has moved off its start: rewards less 0.3 k1 a token, and k1 summed over an episode steers."""
    model, start = fresh_model(), fresh_model()
    algorithm = ppo(kl_coefficient=0.3, kl_target=1e-3, kl_horizon=24, gae_lambda=1.0, whiten=False).start(model, 0)
    with torch.no_grad():
        for i, parameter in enumerate(model.network.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i), dtype=parameter.dtype)
            parameter += 0.02 * noise
    batch = collected(algorithm, model)
    figures = Figures()
    judged = algorithm.judge(actions_of(batch, model.device), NONE_FOLLOWS, figures)
    sums = []
    for row in range(12):
        ids = batch.tokens_BT[row : row + 1, : int(batch.length_B[row])]
        with torch.no_grad():
            now, then = (m.network(input_ids=ids).logits[0].log_softmax(-1) for m in (model, start))
        written = batch.policy_mask_BT[row].nonzero()[:, 0].tolist()
        k1 = [float(now[t - 1, ids[0, t]] - then[t - 1, ids[0, t]]) for t in written]
        rewards = [float(batch.reward_BT[row, t]) - 0.3 * k for t, k in zip(written, k1, strict=True)]
        to_go = [sum(rewards[n:]) for n in range(len(rewards))]  # the head says 0: an advantage is what is to come
        assert judged.advantage_BN[row, : len(written)].tolist() == pytest.approx(to_go, abs=1e-5)
        sums.append(sum(k1))
    assert abs(sum(sums) / 12) > 1e-3 * 1.2  # beyond the target by more than the clip, one way or the other
    error = 0.2 if sum(sums) > 0 else -0.2
    assert algorithm._kl.coefficient == pytest.approx(0.3 * (1 + error * 12 / 24))
    assert figures.result()["kl_coefficient"] == 0.3

"""PPO where a plain one goes wrong: tokens of no probability, batches without a signal, returns of any size, limits."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from baselines.inner_loop import Figures
from baselines.return_scale import ReturnScale
from baselines.unfinished import UnfinishedValued, bootstrapped_rows
from evotext.models.language_model import LanguageModel
from evotext.policy.actions import actions_of
from evotext.types import Ending, Outcome
from tests.baselines.one_step import change, collected, fresh_model, ppo, weights
from tests.baselines.test_learning import named_arm, play, tiny_model
from tests.baselines.test_objectives import ENV, TWO_TURNS, conversation

ADAM = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.0)


@pytest.mark.parametrize("coefficient", [0.0, 0.01])
@pytest.mark.parametrize("far", [-math.inf, -1e4], ids=["masked", "underflows"])
def test_a_token_of_no_probability_costs_no_step(coefficient: float, far: float) -> None:
    """The entropy's slope is infinite there, and 0 times infinity is no number."""
    model = fresh_model()
    before = weights(model)
    logits = torch.zeros(model.network.config.vocab_size, dtype=torch.float64)
    logits[90:] = far
    model.network.get_output_embeddings().register_forward_hook(lambda _module, _args, output: output + logits)
    learner = ppo(entropy_coefficient=coefficient).start(model, 0)
    report = learner.tell(collected(learner, model))
    assert report.metrics["nonfinite_gradients"] == 0 and report.outcome is Outcome.CHANGED
    assert all(bool(m.isfinite().all()) for m in change(before, model)) and math.isfinite(report.metrics["entropy"])


def test_the_scale_of_returns_by_hand() -> None:
    """The mean begins at the first generation's and follows; the spread rises at once and falls by the memory."""
    scale = ReturnScale(0.5)
    assert scale.to_returns(torch.tensor(3.0)) == 3.0
    for returns, mean, spread in (([2.0, 2.0], 2.0, 0.0), ([0.0, 4.0], 2.0, 2.0), ([6.0, 6.0], 4.0, 1.0)):
        scale.follow(torch.tensor(returns, dtype=torch.float64))
        assert (scale.mean, scale.spread) == (mean, spread)
    values = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    assert scale.to_returns(values).tolist() == [3.0, 4.0, 6.0]
    assert scale.to_units(scale.to_returns(values)).tolist() == values.tolist()
    rounded = ReturnScale(0.5)
    rounded.follow(torch.tensor([0.3, 0.1 + 0.2], dtype=torch.float64))
    assert rounded.spread == 0.0


def test_returns_that_never_differ_change_nothing_and_say_so() -> None:
    model = fresh_model()
    before = weights(model)
    learner = ppo(optimizer=ADAM, epochs=2, minibatches=2).start(model, 0)
    for generation in range(3):
        batch = collected(learner, model, generation)
        last_B = batch.policy_mask_BT.int().cumsum(1).argmax(1)
        alike = torch.zeros_like(batch.reward_BT).scatter_(1, last_B[:, None], 0.3)
        report = learner.tell(replace(batch, reward_BT=alike, return_B=torch.full((12,), 0.3, dtype=torch.float64)))
        assert report.outcome is Outcome.NO_SIGNAL and report.cost.updates == 0
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))


@torch.no_grad()
def policy(model: LanguageModel) -> Tensor:
    """Log-probabilities of the answer to each cue."""
    return model.network(input_ids=torch.tensor([[1], [2]])).logits[:, -1].log_softmax(-1)


def test_a_long_drought_leaves_the_policy_where_it_was() -> None:
    """A few successes, then fifty generations of failures alone: what is left of an advantage is the critic's error."""
    model = tiny_model(0)
    learner = ppo(episodes=64, epochs=2, minibatches=2, optimizer=ADAM, max_grad_norm=1.0).start(model, 0)
    for generation in range(53):
        if generation == 3:
            start = policy(model)
        batch = play(model, learner.ask(generation), 1, named_arm)
        if generation >= 3:
            batch = replace(
                batch, reward_BT=torch.zeros_like(batch.reward_BT), return_B=torch.zeros_like(batch.return_B)
            )
        learner.tell(batch)
    divergence = float((start.exp() * (start - policy(model))).sum(1).mean())
    assert divergence < 0.05, divergence


@pytest.mark.parametrize("trunk", ["shared", "own"])
def test_what_a_success_pays_does_not_matter(trunk: str) -> None:
    """Returns times 100: the same policy, and a critic that explains as much of them."""
    ends, explained = [], []
    for factor in (1.0, 100.0):
        model = fresh_model()
        learner = ppo(
            optimizer=ADAM, epochs=2, minibatches=2, max_grad_norm=0.1, gae_lambda=0.9, value_trunk=trunk
        ).start(model, 0)
        for generation in range(4):
            batch = collected(learner, model, generation)
            paid = replace(batch, reward_BT=factor * batch.reward_BT, return_B=factor * batch.return_B)
            report = learner.tell(paid)
        ends.append(weights(model))
        explained.append(report.metrics["explained_variance"])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert explained[0] == pytest.approx(explained[1], abs=1e-4)


LIMITS = [Ending.ENVIRONMENT_LIMIT, Ending.TURN_LIMIT, Ending.CONTEXT]


def judged_advantages(ending: Ending, unfinished: UnfinishedValued, *, observed: bool) -> list[float]:
    """Return the advantages of two turns of two tokens, paid 1 in the end, discounted by 0.5 a turn; the critic says 3."""
    model = fresh_model()
    learner = ppo(gamma=0.5, gae_lambda=1.0, time_unit="turn", whiten=False, unfinished=unfinished).start(model, 0)
    with torch.no_grad():
        learner.critic.head.linear.bias.fill_(3.0)
    _, batch = conversation([[*TWO_TURNS, *([(9, ENV)] if observed else [])]], [1.0])
    batch = replace(batch, ending_B=torch.full((1,), ending))
    judged = learner.judge(actions_of(batch, model.device), bootstrapped_rows(batch, unfinished), Figures())
    return [float(advantage) for advantage in judged.advantage_BN[0]]


@pytest.mark.parametrize("ending", [Ending.TASK, *LIMITS])
def test_a_limit_is_an_end_unless_the_last_observation_is_judged(ending: Ending) -> None:
    end, valued = [0.5 - 3, 0.5 - 3, 1 - 3.0, 1 - 3.0], [0.5 + 0.25 * 3 - 3] * 2 + [1 + 0.5 * 3 - 3.0] * 2
    assert judged_advantages(ending, "counted", observed=True) == pytest.approx(end)
    assert judged_advantages(ending, "bootstrapped", observed=False) == pytest.approx(end)
    expected = end if ending is Ending.TASK else valued
    assert judged_advantages(ending, "bootstrapped", observed=True) == pytest.approx(expected)


def test_a_last_observation_is_judged_as_one_that_an_answer_follows() -> None:
    """The state at which the value is taken is that before the next answer's first token, bit for bit."""
    model = fresh_model()
    learner = ppo().start(model, 0)
    _, cut = conversation([TWO_TURNS[:7]], [1.0])
    _, whole = conversation([TWO_TURNS], [1.0])
    with torch.no_grad():
        last = learner.training.policy.score(actions_of(cut, model.device), 1.0).final_hidden_BD
        before = learner.training.policy.score(actions_of(whole, model.device), 1.0).hidden_BND[:, 2]
    torch.testing.assert_close(last, before, atol=1e-12, rtol=0)


@pytest.mark.parametrize("unfinished", ["counted", "masked", "bootstrapped"])
def test_what_a_fault_ended_is_left_out(unfinished: str) -> None:
    """The step is that of the other episodes alone; with `masked` limits are left out too."""
    moved = []
    for faulty in (True, False):
        model = fresh_model()
        before = weights(model)
        learner = ppo(unfinished=unfinished, gamma=0.9).start(model, 0)
        batch = collected(learner, model)
        keeps = torch.tensor([True] * 8 + [False] * 4)
        if faulty:
            ended = Ending.TURN_LIMIT if unfinished == "masked" else Ending.TIME_LIMIT
            learner.tell(replace(batch, ending_B=torch.where(keeps, Ending.TASK, ended)))
        else:  # rows without actions are left out whatever they are
            learner.tell(replace(batch, policy_mask_BT=batch.policy_mask_BT & keeps[:, None]))
        moved.append(change(before, model))
    assert any(bool(m.ne(0).any()) for m in moved[0])
    for a, b in zip(*moved, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_without_a_discount_nothing_bootstraps() -> None:
    with pytest.raises(ValueError, match="gamma: expected less than 1 with unfinished=bootstrapped, got 1"):
        ppo(unfinished="bootstrapped", gamma=1.0)


def test_a_bootstrapped_value_is_bounded_by_the_discount() -> None:
    """A reward of 1 a turn without end, cut off after two turns: 1 / (1 - gamma) from anywhere, the last state included."""
    model = fresh_model()
    rate = partial(torch.optim.AdamW, lr=0.0)
    learner = ppo(gamma=0.8, time_unit="turn", unfinished="bootstrapped", optimizer=rate, return_memory=0.9).start(
        model, 0
    )
    _, batch = conversation([[*TWO_TURNS, (9, ENV)], [*TWO_TURNS, (10, ENV)]], [1.0, 1.0])
    reward_BT = batch.reward_BT.clone()
    reward_BT[:, 3] = 1.0
    batch = replace(batch, reward_BT=reward_BT, ending_B=torch.full((2,), Ending.TURN_LIMIT))
    for _ in range(100):
        report = learner.tell(batch)
    assert report.metrics["value_mean"] == pytest.approx(5.0, rel=0.1)

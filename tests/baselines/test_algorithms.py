"""GRPO and PPO as wholes: their step is the gradient of the written-out objective, and they solve what they must."""

import copy
from functools import partial
from typing import Any

import pytest
import torch

from evotext.rollouts.collector import Collector
from evotext.types import Outcome, Trajectories
from tests.baselines.one_step import change, fresh_model, grpo, one_generation, ppo, weights, written_out_gradient
from tests.rollouts.chatter import chatter, with_frequent_ends
from tests.small_models import small_model


@pytest.mark.parametrize("normalisation", ["token", "sequence", "constant"])
def test_grpo_steps_along_the_written_out_objective(normalisation: str) -> None:
    model, reference = fresh_model(), fresh_model()
    before = weights(model)
    batch, report = one_generation(grpo(normalisation=normalisation, baseline="none", max_tokens=20), model)
    mask = batch.policy_mask_BT.double()
    groups = torch.tensor(batch.plan.groups)
    mean = torch.stack([batch.return_B[groups == g].mean() for g in groups])
    per_row = {
        "token": torch.full((12,), 1 / float(mask.sum()), dtype=torch.float64),
        "sequence": 1 / (12 * mask.sum(1)),
        "constant": torch.full((12,), 1 / (12 * 20), dtype=torch.float64),
    }[normalisation]
    weight = ((batch.return_B - mean) * per_row)[:, None] * mask
    expected = written_out_gradient(reference, batch, weight)
    for got, wanted in zip(change(before, model), expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-4)  # Llama's norms compute in float32
    assert report.cost.updates == 1 and report.outcome is Outcome.CHANGED


def test_ppo_with_lambda_one_and_no_value_is_reinforce() -> None:
    model, reference = fresh_model(), fresh_model()
    before = weights(model)
    batch, _ = one_generation(ppo(whiten=False, value_coefficient=0.0, gae_lambda=1.0), model)
    to_go = batch.reward_BT.double().flip(1).cumsum(1).flip(1)
    weight = to_go * batch.policy_mask_BT / float(batch.policy_mask_BT.sum())
    for got, wanted in zip(change(before, model), written_out_gradient(reference, batch, weight), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)  # the sampler's log-probabilities are float32


@pytest.mark.parametrize("make", [grpo, ppo])
def test_the_gradient_does_not_depend_on_the_micro_batches(make: Any) -> None:
    changes = []
    for micro_rows in (1, 5, 64):
        model = fresh_model()
        before = weights(model)
        one_generation(make(micro_rows=micro_rows), model)
        changes.append(change(before, model))
    for other in changes[1:]:
        for a, b in zip(changes[0], other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-6)  # Llama's norms compute in float32


def test_what_the_environment_wrote_last_is_not_trained_on() -> None:
    """A changed token after the policy's last one changes nothing."""
    results = []
    for token in (5, 6):
        model = fresh_model()
        algorithm = grpo().start(model, 0)
        batch = Collector(model, chatter(), rows=64).collect(algorithm.ask(0))
        width = batch.tokens_BT.shape[1]
        pad = torch.nn.functional.pad
        longer = Trajectories(
            **{name: getattr(batch, name) for name in batch.__dataclass_fields__}
            | {
                "tokens_BT": torch.cat([batch.tokens_BT, torch.full((12, 1), token)], 1),
                "length_B": torch.full((12,), width + 1),
                "policy_mask_BT": pad(batch.policy_mask_BT, (0, 1)),
                "turn_BT": pad(batch.turn_BT, (0, 1)),
                "reward_BT": pad(batch.reward_BT, (0, 1)),
                "logprob_BT": pad(batch.logprob_BT, (0, 1)),
            }
        )
        algorithm.tell(longer)
        results.append(weights(model))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_dead_groups_change_nothing_and_say_so() -> None:
    model = fresh_model()
    before = weights(model)
    algorithm = grpo(optimizer=partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5)).start(model, 0)
    batch = Collector(model, chatter(), rows=64).collect(algorithm.ask(0))
    flat = Trajectories(
        **{name: getattr(batch, name) for name in batch.__dataclass_fields__}
        | {"return_B": torch.ones_like(batch.return_B), "success_B": torch.ones_like(batch.success_B)}
    )
    report = algorithm.tell(flat)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))
    assert report.outcome is Outcome.NO_SIGNAL and report.cost.updates == 0
    assert report.metrics["frac_reward_zero_std"] == 1.0
    assert report.metrics["groups/all_solved"] == 1.0 and report.metrics["groups/all_failed"] == 0.0


def test_dropping_dead_groups_gives_the_same_gradient_as_keeping_them() -> None:
    """A tiny KL coefficient keeps every row in; without it the dead rows are left out of the forward pass."""
    changes = []
    for coefficient in (0.0, 1e-12):
        model = fresh_model()
        before = weights(model)
        one_generation(grpo(kl_coefficient=coefficient), model)
        changes.append(change(before, model))
    for a, b in zip(*changes, strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-6)  # Llama's norms compute in float32


@pytest.mark.learning
def test_a_strong_kl_penalty_holds_the_policy(seed: int) -> None:
    free, held = fresh_model(seed), fresh_model(seed)
    for model, coefficient in ((free, 0.0), (held, 10.0)):
        algorithm = grpo(
            kl_coefficient=coefficient, optimizer=partial(torch.optim.AdamW, lr=3e-3), epochs=4, minibatches=2
        ).start(model, seed)
        for generation in range(4):
            report = algorithm.tell(Collector(model, chatter(), rows=64).collect(algorithm.ask(generation)))
    start = weights(fresh_model(seed))
    moved = [sum(float((a - b).square().sum()) for a, b in zip(start, weights(m), strict=True)) for m in (free, held)]
    assert report.metrics["kl"] >= 0
    assert moved[1] < moved[0]


def test_an_early_stop_takes_no_further_step() -> None:
    model = fresh_model()
    _, report = one_generation(ppo(epochs=8, optimizer=partial(torch.optim.SGD, lr=50.0), target_kl=1e-3), model)
    assert report.metrics["stopped_early"] == 1.0 and 1 <= report.cost.updates < 8


@pytest.mark.slow
@pytest.mark.learning
@pytest.mark.parametrize("make", [grpo, ppo])
def test_it_solves_a_bandit_over_several_turns(make: Any, seed: int) -> None:
    """Chatter pays the last answer's length, over episodes of one to four turns: longer answers must win."""
    model = with_frequent_ends(small_model("llama", torch.float32, seed), share=0.5)
    adam = partial(torch.optim.AdamW, lr=3e-3)
    algorithm = make(optimizer=adam, max_grad_norm=1.0, **({"prompts": 8} if make is grpo else {"episodes": 24})).start(
        model, 0
    )
    collector = Collector(model, chatter(), rows=64)
    returns = []
    for generation in range(60):
        batch = collector.collect(algorithm.ask(generation))
        returns.append(float(batch.return_B.mean()))
        algorithm.tell(batch)
    assert sum(returns[-5:]) / 5 > sum(returns[:5]) / 5 + 1.0, returns


@pytest.mark.parametrize("make", [grpo, ppo])
def test_state_goes_through_a_dictionary(make: Any) -> None:
    """A second algorithm with the first one's weights and state takes the same next step."""
    adam = {"optimizer": partial(torch.optim.AdamW, lr=1e-3)}
    model, other = fresh_model(), fresh_model()
    first, second = make(**adam).start(model, 0), make(**adam).start(other, 0)
    first.tell(Collector(model, chatter(), rows=64).collect(first.ask(0)))
    other.network.load_state_dict(model.network.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for algorithm, own in ((first, model), (second, other)):
        algorithm.tell(Collector(own, chatter(), rows=64).collect(algorithm.ask(1)))
    for a, b in zip(weights(model), weights(other), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("make", "wrong", "named"),
    [
        (grpo, {"group_size": 1}, "group_size"),
        (grpo, {"prompts": 0}, "prompts"),
        (grpo, {"temperature": float("nan")}, "temperature"),
        (grpo, {"clip_low": "0.2"}, "clip_low"),
        (grpo, {"optimizer": partial(torch.optim.AdamW, lr=-1.0)}, "optimizer.lr: expected another value"),
        (grpo, {"minibatches": 13}, "minibatches"),
        (ppo, {"gamma": 1.5}, "gamma"),
        (ppo, {"episodes": True}, "episodes"),
        (ppo, {"minibatches": 13}, "minibatches"),
    ],
)
def test_bad_hyperparameters_are_refused_by_name(make: Any, wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make(**wrong)

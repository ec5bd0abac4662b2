"""Scores of actions equal the network's own logits, in every family; gradients do not depend on how they were chunked."""

import pytest
import torch

import baselines.policy
from baselines.actions import Actions, actions_of
from baselines.policy import score
from evotext.rollouts.collector import Collector
from tests.rollouts.test_collector import chatter, plan
from tests.rollouts.test_session import with_frequent_ends
from tests.small_models import CONFIGS, small_model


def rollout(family: str = "llama") -> tuple[torch.nn.Module, Actions]:
    model = with_frequent_ends(small_model(family))
    batch = Collector(model, chatter(), rows=8).collect(plan())
    return model.network, actions_of(batch, model.device)


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_scores_equal_the_logits_of_each_row_alone(family: str) -> None:
    network, actions = rollout(family)
    with torch.no_grad():
        scores = score(network, actions, temperature=0.7)  # type: ignore[arg-type]
    for row in range(actions.rows):
        length = int(actions.length_B[row])
        with torch.no_grad():
            logits = network(input_ids=actions.tokens_BT[row : row + 1, :length]).logits[0] / 0.7
        logprob = logits.log_softmax(-1)
        for n in range(int(actions.mask_BN[row].sum())):
            position = int(actions.position_BN[row, n])
            expected = logprob[position - 1, actions.tokens_BT[row, position]]
            torch.testing.assert_close(scores.logprob_BN[row, n], expected, atol=2e-6, rtol=0)
            entropy = -(logprob[position - 1].exp() * logprob[position - 1]).sum()
            torch.testing.assert_close(scores.entropy_BN[row, n], entropy, atol=2e-6, rtol=0)
    assert scores.logprob_BN[~actions.mask_BN].eq(0).all()


def test_the_sampler_and_the_trainer_agree() -> None:
    network, actions = rollout()
    with torch.no_grad():
        scores = score(network, actions, temperature=1.0)  # type: ignore[arg-type]
    gap = (scores.logprob_BN - actions.old_logprob_BN)[actions.mask_BN].abs().max()
    assert gap < 1e-5  # the sampler records float32


def test_chunks_of_logits_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network, actions = rollout()

    def gradient() -> list[torch.Tensor]:
        network.zero_grad()
        scores = score(network, actions, temperature=1.0)  # type: ignore[arg-type]
        (scores.logprob_BN.square().sum() + scores.entropy_BN.sum()).backward()
        return [p.grad.clone() for p in network.parameters() if p.grad is not None]

    whole = gradient()
    monkeypatch.setattr(baselines.policy, "MAX_LOGITS", 300)  # three actions at once
    for a, b in zip(whole, gradient(), strict=True):
        torch.testing.assert_close(a, b)


def test_actions_are_the_policy_s_tokens_in_order() -> None:
    model = with_frequent_ends(small_model())
    batch = Collector(model, chatter(), rows=8).collect(plan())
    actions = actions_of(batch, model.device)
    for row in range(actions.rows):
        where = batch.policy_mask_BT[row].nonzero()[:, 0]
        n = len(where)
        assert actions.position_BN[row, :n].tolist() == where.tolist()
        assert actions.mask_BN[row].tolist() == [True] * n + [False] * (actions.mask_BN.shape[1] - n)
        torch.testing.assert_close(actions.reward_BN[row].sum(), batch.return_B[row])
        assert actions.turn_BN[row, :n].tolist() == batch.turn_BT[row, where].tolist()

"""Sharing a prompt's computation within a group changes neither scores nor gradients, in every family."""

from dataclasses import replace

import pytest
import torch
from families.tiny import tiny_config
from transformers import AutoModelForCausalLM, PreTrainedModel

from baselines.policy import Scorer, Scores
from baselines.shared_opening import network_shares, shared_openings
from evotext.models.flops import ForwardFlops
from evotext.policy.actions import Actions, actions_of
from evotext.rollouts.collector import Collector
from tests.baselines.test_policy import gradient
from tests.rollouts.chatter import chatter, plan, with_frequent_ends
from tests.small_models import CONFIGS, small_model

GROUPS, GROUP = 3, 4
# Some families compute their norms, positions or softmax in float32 whatever the weights are.
SCORES = {"atol": 2e-6, "rtol": 0.0}
GRADIENTS = {"atol": 1e-4, "rtol": 1e-4}


def group_rollout(family: str = "llama", max_turns: int = 8) -> tuple[PreTrainedModel, Actions]:
    """Several turns; prompts of different length, each answered by a group."""
    model = with_frequent_ends(small_model(family))
    numbers = tuple(group for group in range(GROUPS) for _ in range(GROUP))
    asked = replace(plan(rows=len(numbers)), instances=tuple(8 * n + 2 for n in numbers), groups=numbers)
    batch = Collector(model, chatter(max_turns=max_turns), rows=100).collect(asked)
    return model.network, actions_of(batch, model.device)


def assert_equal(network: PreTrainedModel, actions: Actions, shared: Scores, whole: Scores) -> None:
    for name in ("logprob_BN", "entropy_BN", "final_hidden_BD"):
        torch.testing.assert_close(getattr(shared, name), getattr(whole, name), **SCORES)
    mask = actions.mask_BN
    torch.testing.assert_close(shared.hidden_BND[mask], whole.hidden_BND[mask], **SCORES)
    expected = gradient(network, whole.logprob_BN, whole.entropy_BN)
    for a, b in zip(gradient(network, shared.logprob_BN, shared.entropy_BN), expected, strict=True):
        torch.testing.assert_close(a, b, **GRADIENTS)


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_scores_and_gradients_are_those_of_whole_rows(family: str) -> None:
    network, actions = group_rollout(family, max_turns=2)
    sharing, plain = Scorer(network, entropies=True), Scorer(network, entropies=True)
    assert sharing.shares, "every family whose attention reads a cache of keys and values can share"
    assert shared_openings(actions) is not None, "the example must have something to share"
    plain.shares = False
    assert_equal(network, actions, sharing.score(actions, 0.7), plain.score(actions, 0.7))


def test_openings_are_what_stands_before_the_first_action() -> None:
    _, actions = group_rollout(max_turns=2)
    openings = shared_openings(actions)
    assert openings is not None
    assert len(openings.tokens_UT) == GROUPS and len(set(openings.length_B.tolist())) > 1
    for row in range(actions.rows):
        length = int(openings.length_B[row])
        assert length == int(actions.position_BN[row, 0])
        assert torch.equal(openings.tokens_UT[openings.of_row_B[row], :length], actions.tokens_BT[row, :length])
    rest = actions.length_B - openings.length_B
    assert openings.positions == openings.tokens_UT.numel() + actions.rows * int(rest.max())


def test_a_row_without_actions_keeps_its_place() -> None:
    network, actions = group_rollout(max_turns=2)
    mask_BN, position_BN = actions.mask_BN.clone(), actions.position_BN.clone()
    mask_BN[1], position_BN[1] = False, 0
    actions = replace(actions, mask_BN=mask_BN, position_BN=position_BN)
    sharing, plain = Scorer(network, entropies=True), Scorer(network, entropies=True)
    plain.shares = False
    assert_equal(network, actions, sharing.score(actions, 1.0), plain.score(actions, 1.0))


def test_rows_without_a_common_opening_are_run_whole() -> None:
    network, actions = group_rollout(max_turns=2)
    alone = actions.select(torch.tensor([0, GROUP, 2 * GROUP]))
    assert shared_openings(alone) is None
    Scorer(network).score(alone, 1.0)


def test_only_what_was_computed_is_charged() -> None:
    network, actions = group_rollout(max_turns=2)
    openings, scorer = shared_openings(actions), Scorer(network)
    assert openings is not None
    with torch.no_grad():
        scorer.score(actions, 1.0)
    predicted = int(actions.mask_BN.sum())
    assert scorer.spent().flops == ForwardFlops(network)(positions=openings.positions, predicted=predicted)
    assert openings.positions < actions.tokens_BT.numel()


@pytest.mark.parametrize(("family", "shares"), [("llama", True), ("bloom", False), ("mamba", False)])
def test_only_positions_that_a_mask_can_choose_are_shared(family: str, shares: bool) -> None:
    """Bloom counts positions along its cache and takes no mask of ours."""
    network = AutoModelForCausalLM.from_config(tiny_config(family)).eval()
    assert network_shares(network) is shares

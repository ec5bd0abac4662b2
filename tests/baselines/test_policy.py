"""Scores of actions equal the network's own logits, in every family; gradients do not depend on how they were chunked."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    CohereConfig,
    GraniteConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RecurrentGemmaConfig,
)

import baselines.policy
from baselines.policy import Scorer
from evotext.policy.actions import Actions, actions_of
from evotext.policy.output_head import entropies, log_probabilities
from evotext.rollouts.collector import Collector
from tests.rollouts.chatter import chatter, plan, with_frequent_ends
from tests.small_models import CONFIGS, RECURRENT, small_model

SMALL = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "intermediate_size": 48,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 3,
}
# Steps between the last hidden state and the logits: a factor, a divisor, a cap of another name, a transformation.
UNUSUAL: dict[str, tuple[PreTrainedConfig, bool]] = {
    "cohere": (CohereConfig(**SMALL, num_key_value_heads=2, logit_scale=0.25), True),
    "granite": (GraniteConfig(**SMALL, num_key_value_heads=2, logits_scaling=3.0), True),
    "recurrent_gemma": (
        RecurrentGemmaConfig(
            **{k: v for k, v in SMALL.items() if k not in ("max_position_embeddings", "num_hidden_layers")},
            num_hidden_layers=3,
            lru_width=32,
            attention_window_size=64,
            logits_soft_cap=5.0,
        ),
        False,
    ),
    "bert": (BertConfig(**SMALL, is_decoder=True), False),
}


def rollout(family: str = "llama") -> tuple[PreTrainedModel, Actions]:
    model = with_frequent_ends(small_model(family))
    batch = Collector(model, chatter(), rows=8).collect(plan())
    return model.network, actions_of(batch, model.device)


def unusual_network(family: str) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(UNUSUAL[family][0])
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim >= 2:
                    parameter.normal_(std=0.3)
    return network.eval()


def actions_by_hand() -> Actions:
    """Three conversations of different length, the second with the environment's words between two actions."""
    length_B = torch.tensor([9, 6, 4])
    tokens_BT = torch.randint(4, 100, (3, 9), generator=torch.Generator().manual_seed(0))
    tokens_BT[torch.arange(9) >= length_B[:, None]] = 0
    position_BN = torch.tensor([[2, 3, 4, 5], [3, 5, 0, 0], [1, 3, 0, 0]])
    mask_BN = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]).bool()
    zeros_BN = torch.zeros(3, 4)
    return Actions(
        tokens_BT=tokens_BT,
        length_B=length_B,
        position_BN=position_BN,
        mask_BN=mask_BN,
        turn_BN=position_BN * 0,
        reward_BN=zeros_BN.double(),
        old_logprob_BN=zeros_BN,
    )


def slow_scores(network: PreTrainedModel, actions: Actions, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and entropy of each action, from the logits of its row alone and unpadded."""
    logprobs, entropies = [], []
    for row in range(actions.rows):
        ids = actions.tokens_BT[row : row + 1, : int(actions.length_B[row])]
        logprob = (network(input_ids=ids, use_cache=False).logits[0] / temperature).log_softmax(-1)
        for n in range(int(actions.mask_BN[row].sum())):
            position = int(actions.position_BN[row, n])
            logprobs.append(logprob[position - 1, ids[0, position]])
            entropies.append(-(logprob[position - 1].exp() * logprob[position - 1]).sum())
    return torch.stack(logprobs), torch.stack(entropies)


def gradient(network: PreTrainedModel, logprob: torch.Tensor, entropy: torch.Tensor) -> list[torch.Tensor]:
    network.zero_grad()
    (logprob.square().sum() + entropy.sum()).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]


@pytest.mark.parametrize("family", [*sorted(CONFIGS), *RECURRENT])
def test_scores_equal_the_logits_of_each_row_alone(family: str) -> None:
    network, actions = rollout(family)
    scorer = Scorer(network, entropies=True)
    assert scorer.by_head, "a family whose logits are its head's should not pay for the prompts' logits"
    with torch.no_grad():
        scores = scorer.score(actions, temperature=0.7)
        logprob, entropy = slow_scores(network, actions, 0.7)
    torch.testing.assert_close(scores.logprob_BN[actions.mask_BN], logprob, atol=2e-6, rtol=0, check_dtype=False)
    torch.testing.assert_close(scores.entropy_BN[actions.mask_BN], entropy, atol=2e-6, rtol=0, check_dtype=False)
    assert scores.logprob_BN[~actions.mask_BN].eq(0).all()


@pytest.mark.parametrize("family", sorted(UNUSUAL))
def test_unusual_heads_are_noticed_and_scored_by_the_network_itself(family: str) -> None:
    network, actions = unusual_network(family), actions_by_hand()
    scorer = Scorer(network, entropies=True)
    assert scorer.by_head is UNUSUAL[family][1]
    scores = scorer.score(actions, temperature=0.7)
    logprob, entropy = slow_scores(network, actions, 0.7)
    torch.testing.assert_close(scores.logprob_BN[actions.mask_BN], logprob, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(scores.entropy_BN[actions.mask_BN], entropy, atol=2e-5, rtol=1e-5)
    assert scores.logprob_BN[~actions.mask_BN].eq(0).all()
    expected = gradient(network, logprob, entropy)
    got = gradient(network, scores.logprob_BN, scores.entropy_BN)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)  # float32 through a recurrence


def test_asking_the_network_leaves_nothing_behind() -> None:
    network = unusual_network("cohere")
    before = network(input_ids=torch.tensor([[5, 6, 7]])).logits
    Scorer(network)
    assert not network.get_output_embeddings()._forward_pre_hooks
    assert torch.equal(before, network(input_ids=torch.tensor([[5, 6, 7]])).logits)
    assert all(p.grad is None for p in network.parameters())


def test_the_sampler_and_the_trainer_agree() -> None:
    network, actions = rollout()
    with torch.no_grad():
        scores = Scorer(network).score(actions, temperature=1.0)
    gap = (scores.logprob_BN - actions.old_logprob_BN)[actions.mask_BN].abs().max()
    assert gap < 1e-5  # the sampler records float32


@pytest.mark.parametrize("by_head", [True, False])
def test_chunks_of_logits_change_nothing(monkeypatch: pytest.MonkeyPatch, by_head: bool) -> None:
    network, actions = rollout()
    scorer = Scorer(network, entropies=True)
    scorer.by_head = by_head

    def scored() -> list[torch.Tensor]:
        scores = scorer.score(actions, temperature=1.0)
        return gradient(network, scores.logprob_BN, scores.entropy_BN)

    whole = scored()
    # Three actions at once, or one row at a time.
    monkeypatch.setattr(baselines.policy, "MAX_LOGITS", 300)
    for a, b in zip(whole, scored(), strict=True):
        torch.testing.assert_close(a, b)


def test_both_ways_give_the_same_scores() -> None:
    network, actions = rollout()
    by_head, by_rows = Scorer(network, entropies=True), Scorer(network, entropies=True)
    by_rows.by_head = False
    with torch.no_grad():
        one, other = by_head.score(actions, 0.7), by_rows.score(actions, 0.7)
    torch.testing.assert_close(one.logprob_BN, other.logprob_BN)
    torch.testing.assert_close(one.entropy_BN, other.entropy_BN)
    torch.testing.assert_close(one.hidden_BND, other.hidden_BND)
    torch.testing.assert_close(one.final_hidden_BD, other.final_hidden_BD)


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


@pytest.mark.parametrize("by_head", [True, False])
@pytest.mark.parametrize("logits", [1 << 24, 300])
def test_entropies_that_nobody_learns_from_are_a_few(
    monkeypatch: pytest.MonkeyPatch, by_head: bool, logits: int
) -> None:
    """At most seven, evenly spaced over the actions, whatever the chunks; equal to those of all, and without a gradient."""
    network, actions = rollout()
    every, few = Scorer(network, entropies=True), Scorer(network)
    every.by_head = few.by_head = by_head
    monkeypatch.setattr(baselines.policy, "MOST_ENTROPIES", 7)
    monkeypatch.setattr(baselines.policy, "MAX_LOGITS", logits)
    entropy_M = every.score(actions, 0.7).entropy_BN[actions.mask_BN].detach()
    scores = few.score(actions, 0.7)
    assert scores.logprob_BN.requires_grad and not scores.entropy_BN.requires_grad
    found_M = scores.entropy_BN[actions.mask_BN]
    step = -(-len(found_M) // 7)
    assert step > 1 and found_M.isfinite().nonzero()[:, 0].tolist() == list(range(0, len(found_M), step))
    torch.testing.assert_close(found_M[::step], entropy_M[::step])
    assert scores.entropy_BN[~actions.mask_BN].eq(0).all()


def test_a_probability_of_zero_has_no_entropy_and_no_gradient() -> None:
    """Below what the type can hold, and excluded altogether; the rest is what it is without them."""
    logits = torch.tensor([[1.0, 2.0, 3.0, -1e6, -torch.inf]], dtype=torch.float64, requires_grad=True)
    rest = logits.detach()[:, :3].clone().requires_grad_()
    entropy, expected = (entropies(log_probabilities(x, 0.5)) for x in (logits, rest))
    torch.testing.assert_close(entropy, expected)
    (slope,) = torch.autograd.grad(entropy.sum(), logits)
    (wanted,) = torch.autograd.grad(torch.special.entr((rest / 0.5).softmax(-1)).sum(), rest)
    torch.testing.assert_close(slope[:, :3], wanted)
    assert slope[:, 3:].eq(0).all()

"""With adapters the reference is the network without them: no copy, and the same to the last bit."""

import copy
from typing import Any

import pytest
import torch

import baselines.training
from baselines.policy import Scorer
from evotext.models.adapters import LoRA
from evotext.models.flops import ForwardFlops
from evotext.models.language_model import LanguageModel
from evotext.policy.actions import actions_of
from evotext.rollouts.collector import Collector
from tests.baselines.one_step import grpo, ppo
from tests.rollouts.chatter import chatter, with_frequent_ends
from tests.small_models import small_model

pytest.importorskip("peft")
TYPES = [torch.float64, torch.float32, torch.bfloat16]


def adapted(dtype: torch.dtype) -> LanguageModel:
    lora = LoRA(rank=2, alpha=4, targets="all-linear", seed=0)
    return lora.attach(with_frequent_ends(small_model("llama", dtype)))


def kept_copy(model: LanguageModel) -> Scorer:
    """The network computes as without adapters."""
    return Scorer(copy.deepcopy(model.network).requires_grad_(False))


@torch.no_grad()
def move(model: LanguageModel) -> None:
    for i, parameter in enumerate(model.trained_parameters):
        generator = torch.Generator().manual_seed(i)
        parameter += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_its_scores_are_those_of_a_copy_of_the_start(dtype: torch.dtype) -> None:
    model = adapted(dtype)
    learner = grpo(kl_coefficient=0.1).start(model, 0)
    reference, separate = learner.training.reference, kept_copy(model)
    assert reference is not None and reference.network is model.network
    actions = actions_of(Collector(model, chatter(), rows=64).collect(learner.ask(0)), model.device)
    move(model)
    with torch.no_grad():
        now = learner.training.policy.score(actions, 1.0).logprob_BN
        one, other = reference.score(actions, 1.0), separate.score(actions, 1.0)
        assert torch.equal(one.logprob_BN, other.logprob_BN) and torch.equal(one.hidden_BND, other.hidden_BND)
        assert not torch.allclose(one.logprob_BN, now, atol=1e-3)
        assert torch.equal(learner.training.policy.score(actions, 1.0).logprob_BN, now)  # switched on again
    assert model.trained_parameters and all(
        "lora_" in n for n, p in model.network.named_parameters() if p.requires_grad
    )


@pytest.mark.parametrize("dtype", TYPES[1:])
@pytest.mark.parametrize(
    ("make", "settings"),
    [(grpo, {"kl_estimator": "k2"}), (grpo, {"kl_in": "reward"}), (grpo, {"gradient_checkpointing": True}), (ppo, {})],
)
def test_a_run_with_it_is_a_run_with_a_copy(
    make: Any, settings: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    after, kl = [], []
    for keeps in (False, True):
        if keeps:
            monkeypatch.setattr(baselines.training, "_reference", kept_copy)
        model = adapted(dtype)
        learner = make(kl_coefficient=0.5, epochs=2, **settings).start(model, 0)
        for generation in range(3):
            kl.append(learner.tell(Collector(model, chatter(), rows=64).collect(learner.ask(generation))).metrics["kl"])
        after.append([p.detach().clone() for p in model.trained_parameters])
    assert all(torch.equal(a, b) for a, b in zip(*after, strict=True))
    assert kl[:3] == kl[3:] and kl[2] != 0


def test_nothing_is_kept_in_memory_or_checkpoints() -> None:
    model = adapted(torch.float32)
    learner = grpo(kl_coefficient=0.1).start(model, 0)
    state: Any = learner.state_dict()
    assert state["reference"] is None
    twin = grpo(kl_coefficient=0.1).start(adapted(torch.float32), 0)
    twin.load_state_dict(state)
    twin.load_state_dict(state | {"reference": model.network.state_dict()})  # of a version that kept a copy


def test_it_costs_what_the_network_without_adapters_costs() -> None:
    model = adapted(torch.float32)
    plain = ForwardFlops(small_model("llama", torch.float32).network)
    without = ForwardFlops(model.network, without_trained=True)
    assert without(positions=7, predicted=3) == plain(positions=7, predicted=3)
    assert ForwardFlops(model.network)(positions=7, predicted=3) > plain(positions=7, predicted=3)


def test_an_error_leaves_the_adapter_on() -> None:
    model = adapted(torch.float32)
    assert model.adapter is not None
    with pytest.raises(KeyError), model.adapter.disabled():
        raise KeyError
    assert len(model.trained_parameters) > 0

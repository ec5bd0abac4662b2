"""The stated formula of operations against torch's own counter."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from evotext.models.flops import ForwardFlops
from evotext.noise import NoiseKey
from evotext.rollouts.collector import Collector
from evotext.types import Cost
from optimizers.perturbations import FullRank, LowRank
from optimizers.perturbed import PerturbedNetwork
from tests.baselines.one_step import grpo, ppo
from tests.baselines.test_sft import sft
from tests.optimizers.generations import eggroll
from tests.rollouts.chatter import chatter
from tests.small_models import CONFIGS, small_model


def counted(counter: FlopCounterMode) -> int:
    """Products of weights. Attention's own are batched (in Gemma 2, which has no fused attention) or not counted."""
    flops = {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}
    return flops.get("aten.mm", 0) + flops.get("aten.addmm", 0)


@pytest.mark.parametrize("family", CONFIGS)
def test_passes_take_what_torch_counts(family: str) -> None:
    """Counts agree exactly, forward and backward: biases, tied heads, position embeddings and mixtures of experts included."""
    network = small_model(family).network
    ids = torch.randint(4, 100, (3, 7), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        logits = network(input_ids=ids, logits_to_keep=2).logits
        forward = counted(counter)
        logits.sum().backward()
    formula = ForwardFlops(network)(positions=ids.numel(), predicted=6)
    assert forward == formula
    assert counted(counter) == 3 * formula


def one_generation(algorithm: Any) -> tuple[Cost, FlopCounterMode]:
    model = small_model("llama")
    learner = algorithm.start(model, 0)
    with FlopCounterMode(display=False) as counter:
        batch = Collector(model, chatter(), rows=64).collect(learner.ask(0))
        report = learner.tell(batch)
    return batch.cost + report.cost, counter


@pytest.mark.parametrize(
    "algorithm",
    [
        lambda: grpo(),
        lambda: grpo(epochs=2, minibatches=2),
        lambda: grpo(epochs=2, old_logprobs="trainer", kl_coefficient=0.1),
    ],
    ids=["one step", "more epochs", "with a reference"],
)
def test_a_generation_of_grpo_costs_what_torch_counts(algorithm: Callable[[], Any]) -> None:
    """Counts agree exactly: rollout, old log-probabilities, reference, forward and backward of every epoch."""
    cost, counter = one_generation(algorithm())
    assert cost.flops == counter.get_total_flops()
    assert 0 < cost.backward_flops < cost.flops


def test_a_generation_of_ppo_costs_what_torch_counts() -> None:
    """Counts agree but for the value head's own vector, one weight in some hundreds of the trunk's."""
    cost, counter = one_generation(ppo(epochs=3, minibatches=2, kl_coefficient=0.1))
    assert cost.flops == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_generation_of_sft_costs_what_torch_counts() -> None:
    """Counts agree exactly: forward and backward of every epoch, by the answers' tokens at the output head."""
    cost, counter = one_generation(sft(epochs=2, minibatches=2))
    assert cost.flops == counter.get_total_flops()
    assert 0 < cost.backward_flops < cost.flops


@pytest.mark.parametrize("perturbation", [LowRank(rank=2, vectors="frozen"), FullRank(vectors="frozen")])
def test_a_generation_of_es_costs_what_torch_counts(perturbation: Any) -> None:
    """The products of the members' noise count too, but for the embedding's, and for members of weight zero in the update."""
    cost, counter = one_generation(eggroll(perturbation=perturbation))
    assert cost.backward_flops == 0
    assert cost.flops == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_full_rank_noise_costs_as_much_as_the_weights(family: str) -> None:
    """Only those experts of a mixture count that a token is sent to."""
    forward = ForwardFlops(small_model(family).network)
    network = PerturbedNetwork(small_model(family).network)
    noise = FullRank(vectors="full").draw(
        network, NoiseKey(seed=0, generation=0, population=2, antithetic=True, sigma=0.1)
    )
    computed = {"positions": 7, "predicted": 3}
    assert forward.noise(noise.flops_by_matrix, **computed) == forward(**computed)
    thin = LowRank(rank=1, vectors="full").draw(
        network, NoiseKey(seed=0, generation=0, population=2, antithetic=True, sigma=0.1)
    )
    assert 0 < forward.noise(thin.flops_by_matrix, **computed) < forward(**computed) / 8

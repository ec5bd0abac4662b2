"""LoRA adapters: what is tuned, what stays, and that what is saved computes the same."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from evotext.models.adapters import LoRA, NoAdapter
from evotext.models.flops import ForwardFlops
from evotext.models.language_model import LanguageModel
from evotext.noise import NoiseKey
from optimizers import EvolutionStrategy
from optimizers.fitness_shaping import centered_ranks
from optimizers.perturbations import FullRank
from optimizers.perturbed import PerturbedNetwork
from tests.optimizers.generations import PLAIN, told
from tests.small_models import VOCABULARY, small_model

pytest.importorskip("peft")
IDS = torch.randint(0, VOCABULARY, (3, 6), generator=torch.Generator().manual_seed(0))


def adapted(family: str = "llama", **changes: Any) -> LanguageModel:
    settings = {"rank": 2, "alpha": 4, "targets": "all-linear", "seed": 0} | changes
    return LoRA(**settings).attach(small_model(family))


@torch.no_grad()
def moved(model: LanguageModel) -> LanguageModel:
    """The same with adapters that do something."""
    for i, parameter in enumerate(model.trained_parameters):
        parameter += 0.1 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(i), dtype=parameter.dtype
        )
    return model


@torch.no_grad()
def logits(model: LanguageModel) -> torch.Tensor:
    return model.network(input_ids=IDS).logits


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_it_begins_as_the_model_and_trains_the_additions_alone(family: str) -> None:
    model = adapted(family)
    torch.testing.assert_close(logits(model), logits(small_model(family)), rtol=0, atol=1e-12)
    names = {name for name, p in model.network.named_parameters() if p.requires_grad}
    assert names and all("lora_" in name for name in names)
    assert sum(p.numel() for p in model.trained_parameters) < 0.3 * model.parameter_count


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_what_is_saved_is_an_ordinary_model_that_computes_the_same(family: str, tmp_path: Path) -> None:
    """transformers alone loads it, without peft; and the run can go on with its adapters."""
    model = moved(adapted(family))
    expected = logits(model)
    assert not torch.allclose(expected, logits(small_model(family)))
    model.save(tmp_path)
    assert not (tmp_path / "adapter_config.json").exists()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=IDS).logits, expected, rtol=0, atol=1e-10)
    assert torch.equal(logits(model), expected)


def test_equal_seeds_make_equal_additions() -> None:
    first, second, third = adapted(), adapted(), adapted(seed=1)
    pairs = zip(first.trained_parameters, second.trained_parameters, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    others = zip(first.trained_parameters, third.trained_parameters, strict=True)
    assert not all(torch.equal(a, b) for a, b in others)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_every_member_runs_with_its_own_additions(family: str) -> None:
    """Logits of each row equal those of a network whose adapters were replaced by A + sigma E, in float64."""
    model, sigma = moved(adapted(family)), 0.1
    network = PerturbedNetwork(model.network)
    assert all("lora_" in name for name in network.parameters)
    draw = FullRank(vectors="full").draw
    noise = draw(network, NoiseKey(seed=0, generation=0, population=3, antithetic=False, sigma=sigma))
    with torch.no_grad(), noise.active(range(3), 1):
        together = model.network(input_ids=IDS).logits
    for member in range(3):
        own = copy.deepcopy(model.network)
        weight_P = torch.nn.functional.one_hot(torch.tensor(member), 3).double()
        with torch.no_grad():
            for name, unit in noise.combine(weight_P):
                own.get_parameter(name).add_(sigma * unit)
            torch.testing.assert_close(
                own(input_ids=IDS[member : member + 1]).logits[0], together[member], rtol=0, atol=1e-10
            )


def test_an_evolution_strategy_moves_the_additions_alone() -> None:
    model = adapted()
    settings = PLAIN | {"population": 4, "prompts": 2, "sigma": 0.1, "antithetic": True, "temperature": 0.0}
    settings |= {"fitness_shaping": centered_ranks, "perturbation": FullRank(vectors="full")}
    settings |= {"needs_adapter": True, "optimizer": partial(torch.optim.SGD, lr=0.1)}
    learner = EvolutionStrategy(**settings).start(model, 0)
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    learner.tell(told(learner.ask(0), torch.arange(8.0)))
    changed = {name for name, p in model.network.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name, p in model.network.named_parameters() if p.requires_grad}
    with pytest.raises(ValueError, match="adapter=lora"):
        EvolutionStrategy(**settings).start(small_model(), 0)


def test_frozen_weights_cost_no_gradient_of_their_own() -> None:
    """A backward pass is twice the forward pass where all weights train, and about once where adapters do."""
    whole, model = ForwardFlops(small_model().network), ForwardFlops(adapted().network)
    sizes = {"positions": 10, "predicted": 4}
    assert whole.backward(**sizes) == 2 * whole(**sizes)
    own = sum(p.numel() for p in adapted().trained_parameters)
    assert model.backward(**sizes) == model(**sizes) + 2.0 * own * 10


def test_no_adapter_is_the_model_itself() -> None:
    model = small_model()
    assert NoAdapter().attach(model) is model


@pytest.mark.parametrize("changes", [{"rank": 0}, {"alpha": 0}, {"targets": ["nothing_like_it"]}])
def test_bad_settings_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        adapted(**changes)

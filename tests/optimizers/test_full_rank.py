"""Full-rank noise against W + sigma E written out, and the two published algorithms that use it against their formulas."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evotext.noise import NoiseKey
from optimizers import EvolutionStrategy
from optimizers.fitness_shaping import centered_ranks, z_score
from optimizers.perturbations import FullRank
from optimizers.perturbations.full_rank import FullRankNoise
from optimizers.perturbed import PerturbedNetwork
from tests.optimizers.generations import PLAIN, told
from tests.optimizers.parameters import Parameters
from tests.small_models import VOCABULARY, small_model

SIGMA, POPULATION, PROMPTS = 0.05, 6, 3


def _draw(network: Any, population: int = POPULATION, **changes: Any) -> FullRankNoise:
    settings = {"seed": 5, "generation": 2, "antithetic": True, "sigma": SIGMA} | changes
    return FullRank(vectors="full").draw(network, NoiseKey(population=population, **settings))


def _unit(noise: FullRankNoise, population: int = POPULATION) -> list[dict[str, Tensor]]:
    """Every member's noise, one at a time."""
    return [dict(noise.combine(F.one_hot(torch.tensor(m), population).double())) for m in range(population)]


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "opt", "gpt_neox"])  # the others compute their norms in float32
def test_every_member_runs_as_its_own_network(family: str, antithetic: bool) -> None:
    """Biases, norms, transposed matrices, learned positions; in float64 to 1e-10; whole pairs and any members."""
    network = small_model(family).network
    perturbed = PerturbedNetwork(network)
    noise = _draw(perturbed, antithetic=antithetic)
    unit = _unit(noise)
    for members in ([0, 1, 2, 3, 4, 5], [2, 3], [1, 4]):
        ids_BT = torch.randint(1, VOCABULARY, (2 * len(members), 7), generator=torch.Generator().manual_seed(1))
        with torch.inference_mode(), noise.active(members, 2):
            together = network(input_ids=ids_BT).logits
        for i, member in enumerate(members):
            own = copy.deepcopy(network)
            weights = dict(own.named_parameters())
            with torch.no_grad():
                for name, E in unit[member].items():
                    weights[name].add_(perturbed.in_stored_layout(name, E), alpha=SIGMA)
                alone = own(input_ids=ids_BT[2 * i : 2 * i + 2]).logits
            torch.testing.assert_close(together[2 * i : 2 * i + 2], alone, rtol=0, atol=1e-10)


def test_combine_is_the_explicit_sum_however_it_is_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Parameters(a=(5, 7), c=(6,))
    weight_P = torch.tensor([0.3, -1, 2, 0.5, 0, 0], dtype=torch.float64)
    whole, unit = dict(_draw(network).combine(weight_P)), _unit(_draw(network))
    monkeypatch.setattr("optimizers.perturbations.members_in_progress.DRAW_NUMBERS", 1)
    chunked = dict(_draw(network).combine(weight_P))
    for name in ("a", "c"):
        expected = sum(w * member[name] for w, member in zip(weight_P, unit, strict=True))
        torch.testing.assert_close(whole[name], expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(chunked[name], whole[name], rtol=0, atol=1e-12)


def test_noise_is_standard_normal_of_full_rank_and_independent() -> None:
    """Across entries, members, equal shapes, generations and seeds: correlations within four standard errors."""
    network = Parameters(a=(40, 50), b=(40, 50))
    draws = []
    for changes in ({}, {"generation": 3}, {"seed": 6}):
        for member in _unit(_draw(network, 4, antithetic=False, **changes), 4):
            draws += [member["a"].flatten(), member["b"].flatten()]
    draws_DN = torch.stack(draws)
    assert abs(float(draws_DN.mean())) < 4 / draws_DN.numel() ** 0.5
    assert abs(float(draws_DN.var()) - 1) < 4 * (2 / draws_DN.numel()) ** 0.5
    correlation = torch.corrcoef(draws_DN) - torch.eye(len(draws))
    assert float(correlation.abs().max()) < 4.5 / 2000**0.5
    assert torch.linalg.matrix_rank(draws_DN[0].view(40, 50)) == 40


def test_mirrored_members_are_opposite() -> None:
    first, second, *_ = _unit(_draw(Parameters(a=(5, 7))))
    assert torch.equal(first["a"], -second["a"])


def test_frozen_vectors_stay() -> None:
    noise = FullRank(vectors="frozen").draw(
        Parameters(a=(5, 7), c=(6,)), NoiseKey(seed=0, generation=0, population=2, antithetic=True, sigma=SIGMA)
    )
    assert [name for name, _ in noise.combine(torch.ones(2))] == ["a"]
    assert noise.for_members([0, 1]).vector("c") is None


def _step(algorithm: Any) -> tuple[dict[str, Tensor], list[dict[str, Tensor]], Tensor]:
    """Return the change of one generation, every member's noise and the members' mean returns."""
    model = small_model("llama")
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    learner = algorithm.start(model, 0)
    plan = learner.ask(0)
    unit = _unit(plan.noise)
    return_B = torch.randn(POPULATION * PROMPTS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    learner.tell(told(plan, return_B))
    change = {name: p.detach() - before[name] for name, p in model.network.named_parameters()}
    return change, unit, return_B.view(POPULATION, PROMPTS).mean(1)


def _settings(**changes: Any) -> dict[str, Any]:
    shared = PLAIN | {"population": POPULATION, "prompts": PROMPTS, "sigma": SIGMA, "temperature": 0.0}
    return shared | {"perturbation": FullRank(vectors="full")} | changes


def test_openai_es_is_its_papers_estimate() -> None:
    """sum_i (r_i+ - r_i-) eps_i / 2n, divided by sigma: read off a plain step of learning rate sigma."""
    sgd = partial(torch.optim.SGD, lr=SIGMA)
    change, unit, fitness_P = _step(
        EvolutionStrategy(**_settings(antithetic=True, fitness_shaping=centered_ranks, optimizer=sgd))
    )
    rank_P = fitness_P.argsort().argsort().double() / (POPULATION - 1) - 0.5
    for name, moved in change.items():
        pairs = range(0, POPULATION, 2)
        expected = sum((rank_P[i] - rank_P[i + 1]) * unit[i][name] for i in pairs) / POPULATION
        torch.testing.assert_close(moved, expected, rtol=0, atol=1e-10)


def test_es_at_scale_is_its_papers_step() -> None:
    """alpha / N sum_n z_n eps_n, where our learning rate is alpha sigma."""
    alpha = 0.3
    sgd = partial(torch.optim.SGD, lr=alpha * SIGMA)
    change, unit, fitness_P = _step(
        EvolutionStrategy(**_settings(antithetic=False, fitness_shaping=z_score, optimizer=sgd))
    )
    z_P = (fitness_P - fitness_P.mean()) / fitness_P.std(unbiased=False)
    for name, moved in change.items():
        expected = alpha / POPULATION * sum(z * member[name] for z, member in zip(z_P, unit, strict=True))
        torch.testing.assert_close(moved, expected, rtol=0, atol=1e-8)  # the shaping rounds to 2**-32

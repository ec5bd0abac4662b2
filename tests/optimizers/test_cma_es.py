"""CMA-ES in a subspace: members are where they were put, the library's own search is followed, nothing global is touched."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evotext.types import Outcome
from optimizers import CMAES
from optimizers.cma_es import SearcherNormals
from optimizers.perturbations import subspace
from optimizers.perturbations.subspace import Subspace, SubspaceNoise
from optimizers.perturbed import PerturbedNetwork
from tests.optimizers.generations import told
from tests.small_models import VOCABULARY, small_model

cma = pytest.importorskip("cma")
POPULATION, PROMPTS = 8, 3


def searched(**changes: Any) -> CMAES:
    settings = {"population": POPULATION, "prompts": PROMPTS, "sigma": 0.1, "values": 3, "diagonal": False}
    return CMAES(**settings | {"temperature": 0.0, "top_p": 1.0, "min_p": 0.0, "exclude": []} | changes)


def _returns(generation: int) -> Tensor:
    return torch.randn(POPULATION * PROMPTS, generator=torch.Generator().manual_seed(generation), dtype=torch.float64)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_every_member_is_the_network_with_its_own_singular_values(family: str) -> None:
    """Logits of each row equal those of weights with scaled singular values, written out by numpy, in float64."""
    model = small_model(family)
    ids = torch.randint(0, VOCABULARY, (4, 5), generator=torch.Generator().manual_seed(0))
    network = PerturbedNetwork(model.network)
    space = Subspace(network, dict(model.network.named_parameters()), values=3)
    z_PD = 0.3 * torch.randn(4, space.dimensions, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad(), space.noise(z_PD, torch.zeros(space.dimensions)).active(range(4), 1):
        together = model.network(input_ids=ids).logits
    for member in range(4):
        own = copy.deepcopy(model.network)
        for name, z_R in space.by_matrix(z_PD[member]).items():
            weight = own.get_parameter(name).detach().numpy()
            U, s, Vh = np.linalg.svd(weight, full_matrices=False)
            s[:3] *= 1 + z_R.numpy()
            with torch.no_grad():
                own.get_parameter(name).copy_(torch.from_numpy(U @ np.diag(s) @ Vh))
        with torch.no_grad():
            expected = own(input_ids=ids[member : member + 1]).logits[0]
        torch.testing.assert_close(together[member], expected, rtol=0, atol=1e-9)


def test_combine_is_the_sum_of_what_members_add() -> None:
    model = small_model("gpt2")
    space = Subspace(PerturbedNetwork(model.network), dict(model.network.named_parameters()), values=2)
    z_PD = torch.randn(3, space.dimensions, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight_P = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    noise = space.noise(z_PD + 1, stored_D=torch.ones(space.dimensions))
    for name, matrix_OI in noise.combine(weight_P):
        inputs = torch.eye(matrix_OI.shape[1], dtype=torch.float64).expand(3, -1, -1)
        each_PIO = noise.for_members(range(3)).linear(name, inputs)
        torch.testing.assert_close(matrix_OI, torch.einsum("p,pio->oi", weight_P, each_PIO), rtol=0, atol=1e-10)


def test_large_matrices_are_decomposed_by_a_randomised_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same singular values, to its error; and torch's global generator is left alone."""
    matrix = torch.randn(60, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = matrix @ torch.diag(0.8 ** torch.arange(40.0, dtype=torch.float64))
    state = torch.get_rng_state()
    exact = subspace._largest(matrix, 4)
    monkeypatch.setattr(subspace, "EXACT", 10)
    randomised = subspace._largest(matrix, 4)
    products = [U @ V.T for U, V in (exact, randomised)]
    torch.testing.assert_close(*products, rtol=1e-3, atol=1e-3)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_follows_the_librarys_own_search() -> None:
    """Beside a search that is run by hand with the same normals: the same points, and weights at its mean, in float64."""
    model = small_model()
    learner = searched().start(model, 5)
    start = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    space = Subspace(PerturbedNetwork(model.network), dict(model.network.named_parameters()), values=3)
    normals = SearcherNormals(5)
    options = {"popsize": POPULATION, "seed": np.nan, "verbose": -9, "randn": normals}
    by_hand = cma.CMAEvolutionStrategy([0.0] * space.dimensions, 0.1, options)
    numpy_state = np.random.get_state()[1].copy()
    for generation in range(4):
        plan = learner.ask(generation)
        normals.begin(generation)
        points = by_hand.ask()
        assert isinstance(plan.noise, SubspaceNoise)
        np.testing.assert_allclose(plan.noise.point_PD, np.stack(points))
        learner.tell(told(plan, _returns(generation)))
        by_hand.tell(points, (-_returns(generation).view(POPULATION, PROMPTS).mean(1)).tolist())
    for name, change in space.matrices(torch.from_numpy(np.asarray(by_hand.mean))):
        torch.testing.assert_close(model.network.get_parameter(name).detach(), start[name] + change, rtol=0, atol=1e-10)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_without_signal_nothing_changes() -> None:
    model = small_model()
    learner = searched().start(model, 0)
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    report = learner.tell(told(learner.ask(0), torch.ones(POPULATION * PROMPTS)))
    assert report.outcome is Outcome.NO_SIGNAL
    assert all(torch.equal(p, before[name]) for name, p in model.network.named_parameters())


@pytest.mark.learning
def test_it_climbs(seed: int) -> None:
    """The return is the log-probability of a token, members run perturbed."""
    model = small_model(dtype=torch.float32, seed=seed)
    ids_KT = torch.randint(0, VOCABULARY, (PROMPTS, 5), generator=torch.Generator().manual_seed(seed))

    @torch.inference_mode()
    def goodness(rows: int) -> Tensor:
        return model.network(input_ids=ids_KT.repeat(rows, 1)).logits[:, -1].log_softmax(-1)[:, 7]

    learner = searched(population=16).start(model, seed)
    before = float(goodness(1).mean())
    for generation in range(15):
        plan = learner.ask(generation)
        assert plan.noise is not None
        with plan.noise.active(range(16), PROMPTS):
            return_B = goodness(16)
        learner.tell(told(plan, return_B))
    assert float(goodness(1).mean()) > before + 0.5


@pytest.mark.parametrize("changes", [{"population": 2}, {"sigma": 0.0}, {"values": 0}, {"diagonal": 1}])
def test_bad_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        searched(**changes)

"""Guided noise: what it is in the layer's own terms, the closed forms of the estimate, and the basis that it lies in."""

import copy

import pytest
import torch
from families.reference import own_network
from torch import Tensor, nn

from evotext.models.flops import ForwardFlops
from evotext.noise import NoiseKey
from optimizers.perturbations import Guided, LowRank
from optimizers.perturbations.basis import Basis, find_basis
from optimizers.perturbations.guided import GuidedNoise
from optimizers.perturbations.low_rank import LowRankNoise
from optimizers.perturbed import PerturbedNetwork
from tests.optimizers.generations import eggroll
from tests.optimizers.parameters import Parameters
from tests.optimizers.scored_episodes import made_up
from tests.small_models import small_model, small_network

O, I, K, S, D = 12, 9, 4, 3, 5  # noqa: E741
SIGMA = 0.3


def key_of(population: int, *, antithetic: bool = True, generation: int = 0, sigma: float = SIGMA) -> NoiseKey:
    return NoiseKey(seed=5, generation=generation, population=population, antithetic=antithetic, sigma=sigma)


def orthonormal(rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64)).Q


def guided(rank: int = 1, vectors: str = "frozen") -> Guided:
    return Guided(rank=rank, directions=K, tokens=S, whitening=0.0, refresh=1, vectors=vectors)


def small_noise(population: int, rank: int = 1, generation: int = 0) -> tuple[GuidedNoise, Tensor]:
    V_IK = orthonormal(I, K)
    basis = Basis(
        inputs={"a": V_IK},
        tokens={"e": torch.tensor([1, 4, 6])},
        lengths={"e": torch.tensor([[0.5], [1.0], [2.0]]).double()},
    )
    noise = guided(rank).draw_within(
        Parameters(a=(O, I), e=(8, D), left=(3, 3)), key_of(population, generation=generation), basis
    )
    return noise, V_IK


def units(noise: GuidedNoise, name: str, population: int) -> Tensor:
    """Unit noise (P, O, I) of every member, by the update's side."""
    return torch.stack([dict(noise.combine(row_P))[name] for row_P in torch.eye(population, dtype=torch.float64)])


@pytest.mark.parametrize("rank", [1, 3])
def test_noise_lies_in_the_span_and_both_sides_agree(rank: int) -> None:
    noise, V_IK = small_noise(6, rank)
    assert [name for name, _ in noise.combine(torch.ones(6).double())] == ["a", "e"], "`left` has no directions"
    E_POI = units(noise, "a", 6)
    torch.testing.assert_close(E_POI @ V_IK @ V_IK.T, E_POI, rtol=0, atol=1e-12)
    torch.testing.assert_close(E_POI[0], -E_POI[1], rtol=0, atol=1e-12)
    members = noise.for_members(range(6))
    x_PKI = torch.randn(6, 7, I, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    start_O = torch.arange(O).double()
    expected_PKO = start_O + SIGMA * x_PKI @ E_POI.transpose(1, 2)
    torch.testing.assert_close(members.linear("a", x_PKI, start_O.clone()), expected_PKO, rtol=0, atol=1e-12)
    left_PK3 = members.linear("left", x_PKI[..., :3], torch.ones(3).double())
    assert torch.equal(left_PK3, torch.ones(6, 7, 3).double())


def test_an_embeddings_chosen_tokens_move_in_both_of_its_uses() -> None:
    noise, _ = small_noise(6)
    E_PVD = units(noise, "e", 6)
    assert (E_PVD != 0).any(2).sum(1).tolist() == [S] * 6
    ids_PK = torch.arange(8).repeat(6, 1)
    y_PKD = torch.ones(6, 8, D, dtype=torch.float64)
    members = noise.for_members(range(6))
    members.add_to_embedding("e", ids_PK, y_PKD)
    torch.testing.assert_close(y_PKD, 1 + SIGMA * E_PVD, rtol=0, atol=1e-12)
    eye_PDD = torch.eye(D, dtype=torch.float64).expand(6, -1, -1)
    torch.testing.assert_close(members.linear("e", eye_PDD), SIGMA * E_PVD.transpose(1, 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 4])
def test_the_estimate_of_a_linear_function_meets_its_closed_forms(rank: int) -> None:
    """f(W) = <G, W>: the mean estimate is G V V^T, and N MSE / |G V|^2 = O k + 1 + (2 O + 2 k + 2) / r."""
    G_OI = torch.randn(O, I, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    draws, repeats = 64, 400
    V_IK = orthonormal(I, K)
    expected = G_OI @ V_IK @ V_IK.T
    total, errors = torch.zeros(O, I, dtype=torch.float64), []
    for repeat in range(repeats):
        noise, _ = small_noise(2 * draws, rank, generation=repeat)
        small_PX = torch.stack(
            [small.flatten() for small in _small_units(noise, 2 * draws)]
        )  # in the small space, where all of it is
        fitness_P = small_PX @ (G_OI @ V_IK).flatten()
        estimate = dict(noise.combine(fitness_P / (2 * draws)))["a"]
        total += estimate
        errors.append(float((estimate - expected).square().sum()))
    size = float(expected.square().sum())
    mean = total / repeats
    closed = O * K + 1 + (2 * O + 2 * K + 2) / rank
    assert float((mean - expected).square().sum()) < 4 * closed * size / (draws * repeats)
    assert draws * sum(errors) / repeats / size == pytest.approx(closed, rel=0.1)


def _small_units(noise: GuidedNoise, population: int) -> Tensor:
    """(P, O, k) of `a`: the noise of the identity's rows, in the small space."""
    eye_PKK = torch.eye(K, dtype=torch.float64).expand(population, -1, -1)
    return noise.small.for_members(range(population)).linear("a", eye_PKK).transpose(1, 2) / SIGMA


def test_operations_are_counted_by_matrix() -> None:
    noise, _ = small_noise(6, rank=2)
    assert noise.flops_by_matrix == {
        "a": 2.0 * I * K + 2.0 * 2 * (O + K),
        "e": 2.0 * 2 * (S + D),
        "left": 0.0,
    }


def basis_of(
    network: nn.Module, tokens_BT: Tensor, length_B: Tensor, directions: int, tokens: int, whitening: float = 0.0
) -> Basis:
    perturbed = PerturbedNetwork(network)
    specs = perturbed.parameters
    return find_basis(
        perturbed.network,
        specs,
        tokens_BT,
        length_B,
        directions=directions,
        tokens=tokens,
        whitening=whitening,
        together=perturbed.one_input,
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_with_all_directions_the_basis_holds_the_whole_gradient(family: str) -> None:
    """A linear layer's gradient lies in the span of what it read; an embedding's in the rows that were read."""
    network = small_network(family)
    tokens_BT = torch.randint(1, 20, (3, 8), generator=torch.Generator().manual_seed(0))
    length_B = torch.tensor([8, 5, 7])
    basis = basis_of(network, tokens_BT, length_B, directions=20, tokens=100)
    logprob = torch.zeros((), dtype=torch.float64)
    for row, length in zip(tokens_BT, length_B.tolist(), strict=True):
        states = network.base_model(input_ids=row[None, :length]).last_hidden_state
        logprob = logprob + states.square().sum()  # of the layers alone: the head writes other tokens, too
    logprob.backward()
    perturbed = PerturbedNetwork(network)
    checked = 0
    for name, parameter in network.named_parameters():
        if name not in basis or parameter.grad is None or not parameter.grad.any():
            continue
        G = perturbed.in_our_layout(name, parameter.grad)
        if name in basis.tokens:
            rows = torch.zeros(len(G), dtype=torch.bool)
            rows[basis.tokens[name]] = True
            assert not G[~rows].any()
        else:
            V = basis.inputs[name]
            torch.testing.assert_close(V.T @ V, torch.eye(V.shape[1], dtype=V.dtype), rtol=0, atol=1e-10)
            torch.testing.assert_close(G @ V @ V.T, G, rtol=0, atol=1e-8 * float(G.abs().max()))
        checked += 1
    assert checked >= 8


def test_a_basis_is_of_the_strongest_and_of_real_tokens_alone() -> None:
    network = small_network("llama")
    tokens_BT = torch.tensor([[5, 5, 5, 9, 9, 3, 77, 77], [5, 9, 8, 77, 77, 77, 77, 77]])
    basis = basis_of(network, tokens_BT, torch.tensor([6, 3]), directions=2, tokens=2)
    (embedding,) = basis.tokens
    assert basis.tokens[embedding].tolist() == [5, 9]
    assert all(V.shape[1] == 2 for V in basis.inputs.values())
    q, k = (basis.inputs[f"model.layers.0.self_attn.{x}_proj.weight"] for x in "qk")
    assert q is k, "they read the same"
    x_XI = (
        network.model.layers[0]
        .input_layernorm(network.model.embed_tokens(torch.cat([tokens_BT[0, :6], tokens_BT[1, :3]])))
        .detach()
    )
    held = float((x_XI @ q).square().sum())
    best = float(torch.linalg.svdvals(x_XI)[:2].square().sum())
    assert held == pytest.approx(best, rel=1e-9)


def test_a_network_runs_as_its_members() -> None:
    """Inside the layers of a real network, tied embedding included, against copies with the members' own weights."""
    network = small_network("llama")
    network.tie_weights()
    tokens_BT = torch.randint(1, 30, (2, 7), generator=torch.Generator().manual_seed(0))
    perturbed = PerturbedNetwork(network)
    basis = basis_of(network, tokens_BT, torch.tensor([7, 6]), directions=5, tokens=6)
    noise = guided(2, "full").draw_within(perturbed, key_of(4, sigma=0.1), basis)
    with torch.no_grad(), noise.active(range(4), 2):
        found = network(input_ids=tokens_BT.repeat(4, 1), use_cache=False).logits
    for member in range(4):
        own = own_network(perturbed, noise, member, population=4, sigma=0.1)
        with torch.no_grad():
            expected = own(input_ids=tokens_BT, use_cache=False).logits
        torch.testing.assert_close(found[2 * member : 2 * member + 2], expected, rtol=0, atol=1e-9)


def test_before_the_first_basis_noise_is_low_rank() -> None:
    network, key = Parameters(a=(O, I)), key_of(4)
    weight_P = torch.arange(4).double()
    first = dict(guided(2).draw(network, key).combine(weight_P))
    plain = dict(LowRank(rank=2, vectors="frozen").draw(network, key).combine(weight_P))
    assert torch.equal(first["a"], plain["a"])


def test_a_basis_survives_its_state() -> None:
    basis = basis_of(small_network("llama"), torch.ones(2, 4, dtype=torch.int64), torch.tensor([4, 4]), 3, 4)
    together = PerturbedNetwork(small_network("llama")).one_input
    again = Basis.from_state(basis.state_dict(), together)
    assert all(torch.equal(V, again.inputs[name]) for name, V in basis.inputs.items())
    assert len({id(V) for V in again.inputs.values()}) == len({id(V) for V in basis.inputs.values()})


def test_eggroll_takes_guided_noise_from_its_second_generation_on_and_resumes_with_it() -> None:
    algorithm = eggroll(perturbation=Guided(rank=1, directions=3, tokens=6, whitening=0.0, refresh=2, vectors="frozen"))
    model = small_model()
    learner = algorithm.start(model, 0)
    plan = learner.ask(0)
    assert isinstance(plan.noise, LowRankNoise)
    bases, charged = [], []
    for generation in range(4):
        plan = learner.ask(generation)
        report = learner.tell(made_up(plan, seed=generation))
        bases.append(learner._guide.basis)
        charged.append(report.cost.flops)
    assert bases[0] is bases[1] and bases[1] is not bases[2] and bases[2] is bases[3], "every second generation"
    plan = learner.ask(4)
    assert isinstance(plan.noise, GuidedNoise)
    others = small_model()
    others.network.load_state_dict(model.network.state_dict())
    resumed = algorithm.start(others, 0)
    resumed.load_state_dict(copy.deepcopy(learner.state_dict()))
    again = resumed.ask(4)
    assert again.noise is not None
    weight_P = torch.arange(8).double()
    for (name, found), (other, expected) in zip(
        again.noise.combine(weight_P), plan.noise.combine(weight_P), strict=True
    ):
        assert name == other and torch.equal(found, expected)
    looked = ForwardFlops(model.network)(positions=1, predicted=0)
    assert charged[2] - charged[1] > 20 * looked, "a look at the episodes is charged"


def test_whitened_directions_move_the_outputs_alike() -> None:
    """With exponent 1 the inputs have one size along every direction, and a token's length offsets its frequency."""
    network = small_network("llama")
    tokens_BT = torch.tensor([[5, 5, 5, 5, 9, 9, 9, 9], [5, 9, 8, 5, 5, 5, 5, 5]])
    basis = basis_of(network, tokens_BT, torch.tensor([8, 8]), directions=3, tokens=9, whitening=1.0)
    (embedding,) = basis.tokens
    times_S = torch.tensor([10.0, 1.0, 5.0]).double()  # of 5, 8, 9
    assert basis.tokens[embedding].tolist() == [5, 8, 9]
    sizes_S = basis.lengths[embedding][:, 0] * times_S.sqrt()
    torch.testing.assert_close(sizes_S, sizes_S[:1].expand(3), rtol=1e-6, atol=0)
    x_XI = network.model.layers[0].input_layernorm(network.model.embed_tokens(tokens_BT.flatten())).detach()
    V = basis.inputs["model.layers.0.self_attn.q_proj.weight"]
    sizes_K = (x_XI @ V).norm(dim=0)
    torch.testing.assert_close(sizes_K, sizes_K[:1].expand(3), rtol=1e-6, atol=0)
    assert float(V.square().sum()) == pytest.approx(3.0)


def test_lift_and_project_are_transposes() -> None:
    noise, _ = small_noise(2)
    basis, specs = noise._basis, Parameters(a=(O, I), e=(8, D)).parameters
    generator = torch.Generator().manual_seed(0)
    for name, shape in (("a", (O, K)), ("e", (S, D))):
        small = torch.randn(shape, generator=generator, dtype=torch.float64)
        whole = torch.randn(specs[name].shape, generator=generator, dtype=torch.float64)
        left = float((basis.lift(name, small, specs[name]) * whole).sum())
        assert left == pytest.approx(float((small * basis.project(name, whole)).sum()), rel=1e-12)

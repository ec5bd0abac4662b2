"""Low-rank noise: what is drawn, that it is independent where it must be, and the closed forms of the estimate."""

import math
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from evotext.keys.philox import Purpose, normal, stream_id
from evotext.noise import NoiseKey, PopulationNoise
from optimizers.perturbations import LowRank
from tests.optimizers.parameters import Parameters

SIGMA = 0.3


def _draw(
    network: Parameters,
    population: int,
    *,
    rank: int = 1,
    antithetic: bool = True,
    seed: int = 0,
    generation: int = 0,
    sigma: float = SIGMA,
    vectors: str = "full",
) -> PopulationNoise:
    return LowRank(rank=rank, vectors=vectors).draw(
        network, NoiseKey(seed=seed, generation=generation, population=population, antithetic=antithetic, sigma=sigma)
    )


def _matrices(noise: PopulationNoise, name: str, inputs: int, population: int, sigma: float = SIGMA) -> Tensor:
    """Unit noise (P, O, I) of every member, read off what it adds to the identity's outputs."""
    eye_PII = torch.eye(inputs, dtype=torch.float64).expand(population, -1, -1)
    outputs = noise.for_members(range(population))
    y_PIO = outputs.linear(name, eye_PII)
    return y_PIO.transpose(1, 2) / sigma


def _vectors(noise: PopulationNoise, name: str, population: int, sigma: float = SIGMA) -> Tensor:
    vector = noise.for_members(range(population)).vector(name)
    assert vector is not None
    return vector / sigma


def test_noise_is_what_the_paper_says() -> None:
    """E = A B^T / sqrt(r) from the documented stream, by a loop over members; catches a wrong key, sign or constant."""
    network, rank = Parameters(a=(5, 7), b=(7, 5), c=(6,)), 3
    noise = _draw(network, 6, rank=rank, seed=9, generation=4)
    for name, (outputs, inputs) in {"a": (5, 7), "b": (7, 5)}.items():
        found_POI = _matrices(noise, name, inputs, 6)
        stream = stream_id(Purpose.WEIGHT_NOISE, network.parameters[name].index)
        for member in range(6):
            numbers = normal(9, stream, 4, torch.tensor([member // 2]), rank * (outputs + inputs))[0].double()
            A_RO, B_RI = numbers[: rank * outputs].view(rank, outputs), numbers[rank * outputs :].view(rank, inputs)
            expected = (-1) ** member * A_RO.T @ B_RI / math.sqrt(rank)
            torch.testing.assert_close(found_POI[member], expected, rtol=0, atol=1e-12)
    assert torch.linalg.matrix_rank(found_POI[0]) == rank
    stream = stream_id(Purpose.WEIGHT_NOISE, network.parameters["c"].index)
    expected_PN = normal(9, stream, 4, torch.tensor([0, 0, 1, 1, 2, 2]), 6).double()
    expected_PN *= torch.tensor([1, -1] * 3)[:, None]
    torch.testing.assert_close(_vectors(noise, "c", 6), expected_PN, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("antithetic", [True, False])
def test_combine_is_the_explicit_sum(rank: int, antithetic: bool) -> None:
    """Stacked factors against a loop over members; weights of zero at the ends are skipped without harm."""
    network = Parameters(a=(5, 7), c=(6,))
    noise = _draw(network, 8, rank=rank, antithetic=antithetic)
    E_POI, e_PN = _matrices(noise, "a", 7, 8), _vectors(noise, "c", 8)
    for weights in ([0.3, -1, 2, 0.5, 0, 1, 7, -3], [0, 0, 1, 2, 3, 0, 0, 0], [0] * 8, [1] * 8):
        weight_P = torch.tensor(weights, dtype=torch.float64)
        combined = dict(noise.combine(weight_P))
        expected_a = sum(w * E for w, E in zip(weight_P, E_POI, strict=True))
        expected_c = sum(w * e for w, e in zip(weight_P, e_PN, strict=True))
        torch.testing.assert_close(combined["a"], expected_a, rtol=0, atol=1e-10)
        torch.testing.assert_close(combined["c"], expected_c, rtol=0, atol=1e-10)


def test_embedding_rows_are_rows_of_the_same_noise() -> None:
    """A tied matrix adds the same E where tokens come in and where logits go out."""
    for rank in (1, 3):
        noise = _draw(Parameters(a=(11, 4)), 6, rank=rank)
        E_PVD = SIGMA * _matrices(noise, "a", 4, 6)
        for members in ([0, 1, 2, 3], [3, 1, 1]):
            ids_PK = torch.tensor([[0, 10, 3], [5, 5, 1], [2, 8, 9], [7, 0, 0]])[: len(members)]
            y_PKD = torch.ones(len(members), 3, 4, dtype=torch.float64)
            noise.for_members(members).add_to_embedding("a", ids_PK, y_PKD)
            expected = torch.stack([1 + E_PVD[m][ids] for m, ids in zip(members, ids_PK, strict=True)])
            torch.testing.assert_close(y_PKD, expected, rtol=0, atol=1e-12)


def test_noise_does_not_depend_on_order_chunks_or_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members by themselves, in any order, asked for before or after `combine`, drawn in small batches: same numbers."""
    network = Parameters(a=(5, 7), b=(5, 7), c=(6,))
    noise = _draw(network, 6)
    whole, vector = _matrices(noise, "a", 7, 6), _vectors(noise, "c", 6)
    monkeypatch.setattr("optimizers.perturbations.members_in_progress.DRAW_NUMBERS", 1)
    monkeypatch.setattr("evotext.keys.philox.CHUNK_BLOCKS", 3)
    again = _draw(network, 6)
    weight_P = torch.arange(6).double()
    for name, unit in again.combine(weight_P):
        assert torch.equal(unit, dict(noise.combine(weight_P))[name])
    for members in ([4], [5, 0, 3], [2, 3], [1, 2]):
        part = again.for_members(members)
        y = part.linear("a", torch.eye(7, dtype=torch.float64).repeat(len(members), 1, 1))
        torch.testing.assert_close(y.transpose(1, 2) / SIGMA, whole[members], rtol=0, atol=1e-12)
        moved = part.vector("c")
        assert moved is not None
        torch.testing.assert_close(moved / SIGMA, vector[members], rtol=0, atol=1e-12)


def test_a_larger_population_begins_with_the_smaller_one() -> None:
    """Noise belongs to a pair's number, not to the size of the population."""
    small, large = _draw(Parameters(a=(5, 7)), 4), _draw(Parameters(a=(5, 7)), 10)
    assert torch.equal(_matrices(small, "a", 7, 4), _matrices(large, "a", 7, 10)[:4])


def test_mirrored_members_are_mirrored_exactly() -> None:
    """Bit for bit E and -E: else the even terms of the return do not cancel. Without pairs, no two members are alike."""
    pairs = _matrices(_draw(Parameters(a=(5, 7)), 8, rank=2), "a", 7, 8)
    assert torch.equal(pairs[0::2], -pairs[1::2])
    single = _matrices(_draw(Parameters(a=(5, 7)), 8, rank=2, antithetic=False), "a", 7, 8)
    assert torch.equal(single[:4], pairs[0::2])
    for first, second in pairwise(single):
        assert not torch.allclose(first.abs(), second.abs())


def test_noise_is_independent() -> None:
    """Across parameters of equal shape (ES at scale's code repeats its noise there), members, generations and seeds
    (adjacent, and equal but for the high 32 bits). Correlation of 8000 entries below 5 standard errors.
    """
    network = Parameters(a=(8000,), b=(8000,), c=(4000, 4000))
    drawn = []
    for seed, generation in ((0, 0), (0, 1), (1, 0), (1 << 32, 0)):
        noise = _draw(network, 4, seed=seed, generation=generation, antithetic=False)
        drawn += [*_vectors(noise, "a", 4), *_vectors(noise, "b", 4)]
        (A_PRO, B_PRI) = noise.for_members(range(4))._factors["c"]  # type: ignore[attr-defined]
        drawn += [torch.cat((A[0] / SIGMA, B[0])) for A, B in zip(A_PRO, B_PRI, strict=True)]
    correlation = torch.stack(drawn).corrcoef() - torch.eye(len(drawn))
    assert float(correlation.abs().max()) < 5 / math.sqrt(8000)


def test_frozen_vectors_and_bad_options() -> None:
    """Frozen vectors are neither perturbed nor updated; a rank of 0 or a misspelled option is refused."""
    noise = _draw(Parameters(a=(5, 7), c=(6,)), 4, vectors="frozen")
    assert noise.for_members([0]).vector("c") is None
    assert [name for name, _ in noise.combine(torch.ones(4))] == ["a"]
    for options in ({"rank": 0, "vectors": "full"}, {"rank": 1, "vectors": "fixed"}, {"rank": "1", "vectors": "full"}):
        with pytest.raises(ValidationError):
            LowRank(**options)


def test_flops_count_the_products() -> None:
    """2 x draws x rank x O x I for matrices, 2 x draws x N for vectors."""
    assert _draw(Parameters(a=(5, 7), c=(6,)), 8, rank=3).combine_flops == 2 * 4 * (3 * 35 + 6)


def test_narrow_weights_get_narrow_noise() -> None:
    """bf16 noise is the float32 noise rounded, and combines in float32 to what was applied."""
    exact = dict(_draw(Parameters(a=(40, 30)), 8).combine(torch.ones(8).cumsum(0)))["a"]
    narrow = dict(_draw(Parameters(torch.bfloat16, a=(40, 30)), 8).combine(torch.ones(8).cumsum(0)))["a"]
    assert narrow.dtype == torch.float32
    assert float((narrow - exact).norm() / exact.norm()) < 0.01


# Closed forms of the estimate g = 1 / (N sigma) sum_n f(W + sigma E_n) E_n, for f that are known.


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_linear_objective_matrix(rank: int) -> None:
    """f = <G, W>, 12 x 9: the estimate <E, G> E is unbiased at every rank, and its mean squared error is
    |G|^2 (mn + 1 + (2m + 2n + 2) / r): 153 at rank 1, 120 at rank 4. From 60,000 members of a fixed seed: the mean to 5
    standard errors, the error to 6%. Catches a wrong 1 / sqrt(r), factors shared between members, or too few dimensions.
    """
    m, n, population = 12, 9, 60_000
    noise = _draw(Parameters(a=(m, n)), population, rank=rank, antithetic=False, seed=2)
    E_POI = _matrices(noise, "a", n, population)
    G_OI = torch.linspace(-1, 2, m * n, dtype=torch.float64).sin().view(m, n)
    G_OI /= G_OI.norm()
    estimate_POI = (E_POI * G_OI).sum((1, 2))[:, None, None] * E_POI
    expected = m * n + 1 + (2 * m + 2 * n + 2) / rank
    squared_P = (estimate_POI - G_OI).square().sum((1, 2))
    assert abs(float(squared_P.mean()) / expected - 1) < 0.06
    # Unbiased, in the direction that matters and in total (the squared length of the mean's error is expected / P).
    along_P = (estimate_POI * G_OI).sum((1, 2))
    assert abs(float(along_P.mean()) - 1) < 5 * float(along_P.std()) / math.sqrt(population)
    assert float((estimate_POI.mean(0) - G_OI).square().sum()) < 2 * expected / population
    # The error falls as 1 / members.
    errors = [
        float((estimate_POI.view(-1, group, m, n).mean(1) - G_OI).square().sum((1, 2)).mean()) for group in (1, 10, 100)
    ]
    slope = math.log(errors[2] / errors[0]) / math.log(100)
    assert abs(slope + 1) < 0.03


def test_linear_objective_vector() -> None:
    """Full noise: the mean squared error is (d + 1) |g|^2 / n. To 3%."""
    d, population = 30, 40_000
    e_PN = _vectors(_draw(Parameters(c=(d,)), population, antithetic=False), "c", population)
    g_N = torch.linspace(1, 2, d, dtype=torch.float64)
    estimate_PN = (e_PN @ g_N)[:, None] * e_PN
    squared = float((estimate_PN - g_N).square().sum(1).mean() / g_N.square().sum())
    assert abs(squared / (d + 1) - 1) < 0.03


@pytest.mark.parametrize("sigma", [1e-2, 1.0, 30.0])
def test_quadratic_objective_is_exact_with_pairs(sigma: float) -> None:
    """On f = w' H w / 2 + b' w the mirrored estimate is (1/n) sum e (e . grad f) for any sigma: the even part cancels.
    Catches a pair that is not mirrored and a wrong 1 / (N sigma).
    """
    d, population = 7, 10
    noise = _draw(Parameters(c=(d,)), population, sigma=sigma)
    e_PN = _vectors(noise, "c", population, sigma)
    H = torch.arange(d * d, dtype=torch.float64).view(d, d).cos()
    H, b, w = H + H.T, torch.ones(d, dtype=torch.float64), torch.linspace(-1, 1, d, dtype=torch.float64)
    points_PN = w + sigma * e_PN
    f_P = 0.5 * torch.einsum("pi,ij,pj->p", points_PN, H, points_PN) + points_PN @ b
    estimate = dict(noise.combine(f_P))["c"] / (population * sigma)
    gradient = H @ w + b
    pairs = e_PN[0::2]
    torch.testing.assert_close(estimate, (pairs * (pairs @ gradient)[:, None]).mean(0), rtol=1e-9, atol=1e-9)


def test_swapping_the_members_of_every_pair_changes_nothing() -> None:
    """Signs and returns swapped together: the same estimate; returns alone: the estimate turned round."""
    noise, f_P = _draw(Parameters(a=(5, 7)), 8), torch.linspace(0, 1, 8, dtype=torch.float64).exp()
    E_POI = _matrices(noise, "a", 7, 8)
    swapped = torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])
    estimate = dict(noise.combine(f_P))["a"]
    torch.testing.assert_close(torch.einsum("p,poi->oi", f_P[swapped], E_POI[swapped]), estimate, rtol=0, atol=1e-12)
    torch.testing.assert_close(dict(noise.combine(f_P[swapped]))["a"], -estimate, rtol=0, atol=1e-12)


def test_sphere_contracts_as_predicted() -> None:
    """Maximising f = -|w|^2 / 2 by plain steps of length eta, |w|^2 shrinks by 1 - 2 eta + eta^2 (1 + (d + 1) / n) a
    generation. Mean over 300 generations to 5 standard errors; catches noise repeated between generations or pairs.
    """
    d, pairs, eta = 100, 20, 0.15
    w = torch.ones(d, dtype=torch.float64)
    factors = []
    for generation in range(300):
        noise = _draw(Parameters(c=(d,)), 2 * pairs, generation=generation, seed=5)
        f_P = -0.5 * (w + SIGMA * _vectors(noise, "c", 2 * pairs)).square().sum(1)
        moved = w + eta * dict(noise.combine(f_P))["c"] / (2 * pairs * SIGMA)
        factors.append(float(moved.square().sum() / w.square().sum()))
        w = moved * (w.norm() / moved.norm())  # keeps the scale, not the direction
    found = torch.tensor(factors, dtype=torch.float64)
    expected = 1 - 2 * eta + eta**2 * (1 + (d + 1) / pairs)
    assert abs(float(found.mean()) - expected) < 5 * float(found.std()) / math.sqrt(len(factors))


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("members", [[0, 1, 2, 3], [3, 0]])
def test_layers_that_read_one_input_together_read_it_as_they_would_alone(rank: int, members: list[int]) -> None:
    """With what their noise is added to, and each of them alone afterwards as before."""
    noise = _draw(Parameters(q=(5, 7), k=(4, 7), v=(4, 7)), 4, rank=rank)
    draw = torch.Generator().manual_seed(0)
    x_PKI = torch.randn(len(members), 3, 7, generator=draw, dtype=torch.float64)
    start_O = torch.randn(4, generator=draw, dtype=torch.float64)
    alone = noise.for_members(members)
    expected = [alone.linear("q", x_PKI), alone.linear("k", x_PKI, start_O), alone.linear("v", x_PKI)]
    again = _draw(Parameters(q=(5, 7), k=(4, 7), v=(4, 7)), 4, rank=rank).for_members(members)
    for _ in range(2):
        q, k, v = again.linear_together(["q", "k", "v"], x_PKI)
        torch.testing.assert_close([q(None), k(start_O), v(None)], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(again.linear("k", x_PKI, start_O), expected[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3])
def test_experts_are_a_matrix_each(rank: int) -> None:
    """E_e = A_e B_e^T / sqrt(r) from the documented stream, A of all ranks and experts first, by a loop over experts."""
    network = Parameters(e=(4, 5, 7))
    noise = _draw(network, 2, rank=rank, seed=9, generation=4)
    (found_EOI,) = dict(noise.combine(torch.tensor([1.0, 0.0]).double())).values()
    stream = stream_id(Purpose.WEIGHT_NOISE, network.parameters["e"].index)
    numbers = normal(9, stream, 4, torch.tensor([0]), rank * 4 * (5 + 7))[0].double()
    A_REO, B_REI = numbers[: rank * 4 * 5].view(rank, 4, 5), numbers[rank * 4 * 5 :].view(rank, 4, 7)
    for expert in range(4):
        expected = A_REO[:, expert].T @ B_REI[:, expert] / math.sqrt(rank)
        torch.testing.assert_close(found_EOI[expert], expected, rtol=0, atol=1e-12)

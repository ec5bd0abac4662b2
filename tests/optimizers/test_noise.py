"""Properties that all noise shares: its key, the parameters it moves, and that it is freed when nobody needs it."""

import gc
import weakref
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch

from evotext.noise import NoiseKey, Perturbation
from optimizers.perturbations import FullRank, LowRank
from optimizers.perturbed import PerturbedNetwork
from tests.optimizers.parameters import Parameters
from tests.small_models import small_model

KEY = NoiseKey(seed=0, generation=0, population=6, antithetic=True, sigma=0.1)
PERTURBATIONS = [
    kind(vectors=vectors) for kind in (FullRank, lambda **o: LowRank(rank=1, **o)) for vectors in ("full", "frozen")
]


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("members", [[0, 1, 2, 3], [2, 3], [1, 2], [0, 1, 2], [5, 4], [3], [0, 0]])
def test_a_key_says_who_shares_a_draw(members: list[int], antithetic: bool) -> None:
    """Against a table of (draw, sign), written out."""
    key = replace(KEY, antithetic=antithetic)
    table = [(n // 2, 1 - 2 * (n % 2)) for n in range(6)] if antithetic else [(n, 1) for n in range(6)]
    draws, signs = zip(*[table[n] for n in members], strict=True)
    assert key.draws == len({draw for draw, _ in table})
    assert key.draws_of(members).tolist() == list(draws)
    assert key.signs_of(members).tolist() == list(signs)
    some = key.whole_draws(members)
    every = [n for n in range(6) if table[n][0] in draws]
    assert (some is not None) == (members == every)
    assert some is None or list(range(some.start, some.stop)) == sorted(set(draws))


@pytest.mark.parametrize("weights", [[0, 0, 3, 1, 0, 0], [1, 1, 1, 1, 1, 1], [0] * 6, [0, 0, 0, 0, 0, 2]])
def test_weights_of_draws_are_those_of_their_members(weights: list[int]) -> None:
    """sum_p w_p sign_p of every draw; outside the range that is named they are all 0."""
    weight_N, some = KEY.weigh_draws(torch.tensor(weights))
    assert weight_N.tolist() == [weights[2 * n] - weights[2 * n + 1] for n in range(3)]
    assert not weight_N[: some.start].any() and not weight_N[some.stop :].any()


def test_a_key_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        KEY.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("perturbation", PERTURBATIONS)
def test_what_moves_is_what_is_combined(perturbation: Perturbation) -> None:
    network = PerturbedNetwork(small_model("gpt2").network, exclude=["*wte*"])
    moved = [name for name, spec in network.parameters.items() if perturbation.moves(spec)]
    assert [name for name, _ in perturbation.draw(network, KEY).combine(torch.ones(6))] == moved
    assert 0 < len(moved) <= len(network.parameters)


@pytest.mark.parametrize("perturbation", PERTURBATIONS[::2])
def test_noise_goes_with_its_last_reference(perturbation: Any) -> None:
    """Numbers of the weights' size must not wait for the garbage collector."""
    gc.disable()
    try:
        noise = perturbation.draw(PerturbedNetwork(small_model().network), KEY)
        list(noise.combine(torch.ones(6)))
        noise.for_members([0, 1])
        gone = weakref.ref(noise)
        del noise
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("members", [[0, 1, 2, 3], [3, 0], [2, 2, 5]])
@pytest.mark.parametrize(
    "perturbation", [LowRank(rank=1, vectors="full"), LowRank(rank=3, vectors="full"), PERTURBATIONS[0]]
)
def test_experts_are_applied_as_they_are_combined(perturbation: Perturbation, members: list[int]) -> None:
    """Each position gets its own member's noise of its own expert, expert by expert from what the estimator sums."""
    noise = perturbation.draw(Parameters(e=(3, 6, 5)), KEY)
    every = torch.eye(KEY.population, dtype=torch.float64)
    unit_PEOI = torch.stack([dict(noise.combine(one_P))["e"] for one_P in every])[members]
    draw = torch.Generator().manual_seed(0)
    x_PKI = torch.randn(len(members), 4, 5, generator=draw, dtype=torch.float64)
    expert_PK = torch.randint(0, 3, (len(members), 4), generator=draw)
    found_PKO = noise.for_members(members).experts("e", expert_PK, x_PKI)
    assert found_PKO is not None
    for p in range(len(members)):
        for k in range(4):
            expected_O = KEY.sigma * unit_PEOI[p, expert_PK[p, k]] @ x_PKI[p, k]
            torch.testing.assert_close(found_PKO[p, k], expected_O, rtol=0, atol=1e-12)

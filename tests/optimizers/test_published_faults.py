"""Faults of published implementations of evolution strategies, each beside ours: the check fails on the faulty form.

They were read in the code of ES at scale (VsonicV/es-fine-tuning-paper, VsonicV/es-at-scale) and of OpenAI-ES.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evotext.keys.instances import train_instances
from evotext.keys.philox import Purpose, many_normals, normal, stream_id
from evotext.noise import NoiseKey
from optimizers import EvolutionStrategy
from optimizers.ascent import Ascent
from optimizers.fitness_shaping import centered_ranks, raw, task_z_score, z_score
from optimizers.perturbations import FullRank, LowRank
from optimizers.perturbed import PerturbedNetwork
from tests.optimizers.generations import PLAIN, told
from tests.optimizers.parameters import Parameters
from tests.runner.small_runs import run_to_the_end
from tests.small_models import VOCABULARY, small_model

SETTINGS: dict[str, Any] = PLAIN | {
    "population": 8,
    "prompts": 3,
    "sigma": 0.1,
    "antithetic": False,
    "temperature": 0.0,
    "perturbation": FullRank(vectors="full"),
    "fitness_shaping": z_score,
    "optimizer": partial(torch.optim.SGD, lr=0.1),
}


def _correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten().double(), b.flatten().double()]))[0, 1])


@pytest.mark.parametrize("perturbation", [FullRank(vectors="full"), LowRank(rank=1, vectors="full")])
def test_parameters_of_equal_shape_have_their_own_noise(perturbation: Any) -> None:
    """There, a generator is seeded with the member's seed anew for each parameter."""

    def faulty() -> list[Tensor]:
        return [torch.randn(60, 50, generator=torch.Generator().manual_seed(7)) for _ in range(2)]

    noise = perturbation.draw(
        Parameters(first=(60, 50), second=(60, 50)),
        NoiseKey(seed=0, generation=0, population=1, antithetic=False, sigma=1.0),
    )
    ours = [matrix for _, matrix in noise.combine(torch.ones(1, dtype=torch.float64))]
    assert _correlation(*faulty()) > 0.99
    assert abs(_correlation(*ours)) < 0.1


def test_weights_are_not_perturbed_and_restored() -> None:
    """There, sigma E is added in place and subtracted again, which in bf16 does not lead back."""
    weight = torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    step = (0.1 * torch.randn(1000, generator=torch.Generator().manual_seed(1))).bfloat16()
    assert not torch.equal((weight + step) - step, weight)
    model = small_model(dtype=torch.bfloat16)
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    draw = FullRank(vectors="full").draw
    network = PerturbedNetwork(model.network)
    noise = draw(network, NoiseKey(seed=0, generation=0, population=4, antithetic=False, sigma=0.1))
    ids = torch.randint(0, VOCABULARY, (4, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model.network(input_ids=ids).logits
        with noise.active(range(4), 1):
            assert not torch.equal(model.network(input_ids=ids).logits, plain)
    assert all(torch.equal(p, before[name]) for name, p in model.network.named_parameters())


@pytest.mark.parametrize("narrow", ["masters", "stochastic"])
def test_an_update_of_bf16_weights_is_not_lost(narrow: Any) -> None:
    """There, the step is added to bf16 weights: much of it is below half of their spacing. Ours arrives in sum, to 5%."""
    start = torch.randn(20_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    step = 1e-4 * torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    faulty, weight = start.clone(), torch.nn.Parameter(start.clone())
    ascent = Ascent({"w": weight}, partial(torch.optim.SGD, lr=1.0), narrow=narrow)
    for _ in range(100):
        faulty = (faulty.float() + step).bfloat16()
        ascent.step([("w", step.clone())])
    wanted = 100 * step

    def arrived(end: Tensor) -> float:
        moved = end.detach().float() - start.float()
        return float((moved * wanted).sum() / wanted.square().sum())

    assert arrived(faulty) < 0.6
    assert arrived(weight) == pytest.approx(1.0, abs=0.05)


def test_members_never_share_a_seed() -> None:
    """There, seeds are drawn from 0 to 10**6: of the paper's 500 x 30 about a hundred are drawn twice."""
    drawn = torch.randint(0, 10**6, (500 * 30,), generator=torch.Generator().manual_seed(0))
    assert len(drawn.unique()) < 500 * 30
    members, stream = torch.arange(30), stream_id(Purpose.WEIGHT_NOISE, 0)
    for draw in (partial(normal, 0, stream), lambda g, n, c: many_normals(0, stream, g, n, c, torch.device("cpu"))):
        first = torch.cat([draw(generation, members, 2) for generation in range(500)])
        assert len(first.unique(dim=0)) == 500 * 30


def test_a_resumed_run_goes_on_with_new_noise_and_new_instances() -> None:
    """There, a resumed run draws the seeds of its first iterations again."""
    algorithm = EvolutionStrategy(**SETTINGS)
    learner, resumed = (algorithm.start(small_model(), 0) for _ in range(2))
    for generation in range(2):
        learner.tell(told(learner.ask(generation), torch.arange(24.0)))
    resumed.load_state_dict(learner.state_dict())
    plans = resumed.ask(2), learner.ask(2), resumed.ask(0)
    units = [next(iter(plan.noise.combine(torch.ones(8, dtype=torch.float64))))[1] for plan in plans if plan.noise]
    assert torch.equal(units[0], units[1]) and plans[0].instances == plans[1].instances
    assert abs(_correlation(units[0], units[2])) < 0.2 and not set(plans[0].instances) & set(plans[2].instances)


def test_the_shaping_that_is_asked_for_is_the_one_that_acts() -> None:
    """There, the option is read and not used: every setting takes the same step."""
    steps = []
    for shaping in (raw, z_score, centered_ranks, task_z_score):
        model = small_model()
        before = model.network.lm_head.weight.detach().clone()
        learner = EvolutionStrategy(**SETTINGS | {"fitness_shaping": shaping}).start(model, 0)
        return_B = torch.randn(24, generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp()
        learner.tell(told(learner.ask(0), return_B))
        steps.append(model.network.lm_head.weight.detach() - before)
    for i, first in enumerate(steps):
        for second in steps[:i]:
            assert not torch.allclose(first, second, rtol=1e-3)


def test_seed_zero_is_a_seed() -> None:
    """There, `seed or 42` makes 42 of it."""
    numbers = [normal(seed, 0, 0, torch.arange(3), 8) for seed in (0, 42)]
    assert not torch.equal(*numbers)
    assert train_instances(0, 0, 8) != train_instances(42, 0, 8)


@pytest.mark.parametrize("generations", [1, 3])
def test_a_budget_of_n_generations_is_n_generations(tmp_path: Path, generations: int) -> None:
    """There, the loop runs once more than it was told."""
    run_to_the_end(tmp_path / "run", "es_at_scale", options={"generations": generations})
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["kind"] == "train" for line in lines) == generations


def test_equal_returns_have_equal_ranks() -> None:
    """There, ties are ranked by their order, so that a generation in which nobody scored moves the weights."""
    returns = torch.zeros(8, 3, dtype=torch.float64)
    faulty = returns.mean(1).argsort(stable=True).argsort().double() / 7 - 0.5
    assert float(faulty.abs().max()) == 0.5
    assert centered_ranks(returns).tolist() == [0.0] * 8

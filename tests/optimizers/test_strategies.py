"""The parts that are combined with an estimator: schedules, decay, resampling, and MeZO, which is a choice of them."""

from functools import partial
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from evotext.models.language_model import LanguageModel
from evotext.optimization.schedules import Linear
from evotext.types import Outcome, Sampling
from optimizers import EvolutionStrategy
from optimizers.decay import Anchored
from optimizers.fitness_shaping import raw, z_score
from optimizers.perturbations import FullRank, LowRank
from optimizers.resampling import Resampling
from tests.optimizers.generations import PLAIN, told
from tests.small_models import small_model

POPULATION, PROMPTS, SIGMA, RATE = 8, 3, 0.1, 0.7
SGD = partial(torch.optim.SGD, lr=RATE)


def _settings(**changes: Any) -> dict[str, Any]:
    settings = PLAIN | {"population": POPULATION, "prompts": PROMPTS, "sigma": SIGMA, "temperature": 0.0}
    settings |= {"antithetic": True, "fitness_shaping": z_score, "optimizer": SGD}
    return settings | {"perturbation": LowRank(rank=1, vectors="full")} | changes


def _weights(model: LanguageModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.network.named_parameters()}


def _returns(generation: int = 0) -> Tensor:
    return torch.randn(POPULATION * PROMPTS, generator=torch.Generator().manual_seed(generation), dtype=torch.float64)


def test_schedules_scale_sigma_and_the_learning_rate() -> None:
    """In generation 1 both are halved: the noise that acts, the constant in front of the sum, the step, and the figures."""
    half = Linear(generations=1, end=0.5, warm_up=0)
    changes = []
    for settings in (
        {"sigma_schedule": half, "learning_rate_schedule": half},
        {"sigma": SIGMA / 2, "optimizer": partial(torch.optim.SGD, lr=RATE / 2)},
    ):
        model = small_model()
        learner = EvolutionStrategy(**_settings(**settings)).start(model, 0)
        before, plan = _weights(model), learner.ask(1)
        assert plan.noise is not None
        members = plan.noise.for_members(range(POPULATION))
        ids = torch.zeros(POPULATION, 1, dtype=torch.int64)
        y = torch.zeros(POPULATION, 1, model.network.config.hidden_size, dtype=torch.float64)
        members.add_to_embedding("model.embed_tokens.weight", ids, y)
        metrics = learner.tell(told(plan, _returns())).metrics
        assert metrics["sigma"] == SIGMA / 2 and metrics["learning_rate"] == RATE / 2
        changes.append([y] + [p.detach() - before[n] for n, p in model.network.named_parameters()])
    for scheduled, plain in zip(*changes, strict=True):
        torch.testing.assert_close(scheduled, plain, rtol=0, atol=1e-12)
        assert bool((plain != 0).any())


def test_anchored_decay_goes_back_towards_the_start_and_not_towards_zero() -> None:
    """W <- W' + lr rate (W_0 - W') with W' the plain step's outcome; the second generation tells W_0 from W."""
    decayed, plain = (small_model(), small_model())
    rate = 0.3
    start = _weights(decayed)
    one = EvolutionStrategy(**_settings(decay=Anchored(rate=rate))).start(decayed, 0)
    other = EvolutionStrategy(**_settings()).start(plain, 0)
    for generation in range(2):
        before_decayed, before_plain = _weights(decayed), _weights(plain)
        for learner in (one, other):
            learner.tell(told(learner.ask(generation), _returns(generation)))
        for name, after in decayed.network.named_parameters():
            step = plain.network.get_parameter(name) - before_plain[name]
            free = before_decayed[name] + step
            expected = free + RATE * rate * (start[name] - free)
            torch.testing.assert_close(after.detach(), expected, rtol=0, atol=1e-12)
    shorter = [float((p.detach() - start[n]).norm()) for n, p in decayed.network.named_parameters()]
    longer = [float((p.detach() - start[n]).norm()) for n, p in plain.network.named_parameters()]
    assert sum(shorter) < sum(longer)


def test_without_signal_decay_does_not_act_either() -> None:
    model = small_model()
    learner = EvolutionStrategy(**_settings(decay=Anchored(rate=0.5))).start(model, 0)
    learner.tell(told(learner.ask(0), _returns()))
    before = _weights(model)
    report = learner.tell(told(learner.ask(1), torch.ones(POPULATION * PROMPTS)))
    assert report.outcome is Outcome.NO_SIGNAL
    assert all(torch.equal(p, before[n]) for n, p in model.network.named_parameters())


@pytest.mark.parametrize(("every", "alike"), [(1, [[0], [1], [2], [3]]), (2, [[0, 1], [2, 3]]), (None, [[0, 1, 2, 3]])])
def test_instances_stay_for_as_long_as_asked(every: int | None, alike: list[list[int]]) -> None:
    drawn = [Resampling(every=every).instances(5, generation, 4) for generation in range(4)]
    for first in range(4):
        for second in range(4):
            together = any(first in group and second in group for group in alike)
            assert (drawn[first] == drawn[second]) == together
    assert Resampling(every=every).instances(6, 0, 4) != drawn[0]


def test_mezo_is_its_papers_step() -> None:
    """eta (f+ - f-) / (2 eps) z, with f the mean return over the prompts."""
    model = small_model()
    settings = _settings(population=2, fitness_shaping=raw, perturbation=FullRank(vectors="full"))
    learner = EvolutionStrategy(**settings).start(model, 0)
    before, plan = _weights(model), learner.ask(0)
    assert plan.noise is not None
    z = {name: noise.clone() for name, noise in plan.noise.combine(torch.tensor([1.0, 0.0], dtype=torch.float64))}
    return_B = _returns()[: 2 * PROMPTS]
    learner.tell(told(plan, return_B))
    plus, minus = return_B.view(2, PROMPTS).mean(1)
    for name, after in model.network.named_parameters():
        expected = RATE * (plus - minus) / (2 * SIGMA) * z[name]
        torch.testing.assert_close(after.detach() - before[name], expected, rtol=0, atol=1e-10)


def test_rollouts_are_truncated_as_configured() -> None:
    plan = EvolutionStrategy(**_settings(temperature=0.9, top_p=0.8, min_p=0.05)).start(small_model(), 0).ask(0)
    assert plan.sampling == Sampling(temperature=0.9, top_p=0.8, min_p=0.05)
    with pytest.raises(ValidationError, match="top_p: expected 1 with temperature=0"):
        EvolutionStrategy(**_settings(top_p=0.8))

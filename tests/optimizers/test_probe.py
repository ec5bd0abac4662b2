"""The probe: its statistics on made-up members, and its estimates on a small model against what theory says of them."""

import math

import pytest
import torch

from evotext.policy.actions import actions_of
from evotext.policy.advantages import group_advantages
from optimizers.perturbations import Guided, LowRank
from optimizers.probe.forecast import forecast
from optimizers.probe.gradient import Estimate, Estimators, by_group, group_of
from optimizers.probe.returns import reliability
from optimizers.scoring import Scoring
from optimizers.selection import Energy, policy_gradient
from tests.optimizers.scored_episodes import made_up
from tests.optimizers.test_scored_es import TEMPERATURE, scored_es, weights, with_sampled_logprobs
from tests.small_models import small_model


def test_reliability_is_the_share_of_variance_that_members_own() -> None:
    """Returns are a member's own part plus chance: of a mean over Q instances, v / (v + noise / Q) is the member's."""
    generator = torch.Generator().manual_seed(0)
    own_P1 = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    chance_PQ = 2.0 * torch.randn(4000, 8, generator=generator, dtype=torch.float64)
    assert reliability(own_P1 + chance_PQ) == pytest.approx(1 / (1 + 4 / 8), abs=0.03)
    assert reliability(chance_PQ) < 0.06
    assert reliability(torch.ones(5, 8)) == 0.0


def test_parameters_are_grouped_by_what_they_are() -> None:
    names = {
        "model.embed_tokens.weight": "embedding",
        "model.layers.11.self_attn.q_proj.weight": "layer 11 attention",
        "transformer.h.2.mlp.c_fc.weight": "layer 2 mlp",
        "lm_head.weight": "head",
        "model.norm.weight": "other",
    }
    assert {name: group_of(name) for name in names} == names
    groups = by_group(
        {
            "model.layers.0.self_attn.q_proj.weight": Energy(energy=1.0, dimensions=4),
            "model.layers.0.self_attn.k_proj.weight": Energy(energy=2.0, dimensions=5),
            "model.embed_tokens.weight": Energy(energy=7.0, dimensions=6),
        }
    )
    assert list(groups.items()) == [
        ("embedding", Energy(energy=7.0, dimensions=6)),
        ("layer 0 attention", Energy(energy=3.0, dimensions=9)),
    ]


def test_cosines_are_what_the_signals_share_makes_of_them_and_weights_come_back() -> None:
    """cos = sqrt(n rho e / d), for isotropic and for guided noise; a gain needs a step, which is taken back."""
    model = small_model()
    hyper = scored_es()
    batch = with_sampled_logprobs(model, made_up(hyper.start(model, 0).ask(0)))
    actions = actions_of(batch, model.device)
    advantage_B = group_advantages(batch.return_B, torch.tensor(batch.plan.groups), "best")
    gradient, _ = policy_gradient(model.network, actions, advantage_B, temperature=TEMPERATURE)
    before = weights(model)
    estimators = Estimators(
        Scoring(model.network, rows=512),
        batch,
        actions,
        advantage_B,
        gradient,
        temperature=TEMPERATURE,
        members=512,
        sigma=1e-5,
        draws=6,
        seed=0,
    )
    guided = Guided(rank=1, directions=6, tokens=40, whitening=0.0, refresh=1, vectors="frozen")
    estimates = [
        estimators.of("scored", LowRank(rank=1, vectors="frozen"), exclude=[]),
        estimators.of("guided", guided, exclude=[]),
        estimators.of("selected", guided, exclude=[], share=0.5),
    ]
    assert torch.equal(weights(model), before)
    for estimate in estimates:
        expected = math.sqrt(512 * estimate.signal * estimate.energy / estimate.dimensions)
        # Noise of rank 1 has a little more error than its dimensions say, and the signal at most all of the estimate.
        assert estimate.cosine == pytest.approx(expected / math.sqrt(1 + expected**2), rel=0.35), estimate
        assert 0 < estimate.signal <= 1.3 and 0 < estimate.energy <= 1 and estimate.gain > 0
    scored, whole, selected = estimates
    assert scored.dimensions > whole.dimensions > selected.dimensions
    assert scored.cosine < whole.cosine and scored.energy > whole.energy > selected.energy >= 0.3
    assert estimators.exact() > 0  # not the greatest: at a given KL the natural gradient is


def test_the_forecast_gives_a_command_and_says_why_not() -> None:
    def estimate(name: str, cosine: float) -> Estimate:
        return Estimate(name=name, cosine=cosine, error=0.0, signal=0.1, dimensions=10, energy=0.5, gain=0.05)

    words = ("model=tiny", "env=recall")
    near = forecast([estimate("guided", 0.01), estimate("selected 0.6", 0.04)], [], success=0.2, scored=40, words=words)
    assert near.learns
    assert near.command == "python scripts/train.py algorithm=scored_es algorithm.select=0.6 model=tiny env=recall"
    assert not forecast([estimate("guided", 0.001)], [], success=0.2, scored=40, words=words).learns
    dead = forecast([], [], success=0.0, scored=0, words=words)
    assert not dead.learns and dead.score == 0.0 and any("too few episodes" in reason for reason in dead.reasons)

"""The probe: its statistics on made-up members, and its estimates on a small model against what theory says of them."""

import math
import shlex
from functools import partial
from typing import Any

import pytest
import torch
from evotext.commands.probe import same_words
from hydra.core.override_parser.overrides_parser import OverridesParser

from evotext.policy.actions import actions_of
from evotext.policy.advantages import group_advantages
from evotext.rollouts.collector import Collector
from optimizers.perturbations import Guided, Local, LowRank
from optimizers.perturbed import PerturbedNetwork
from optimizers.probe import report
from optimizers.probe.differences import energies_by_differences
from optimizers.probe.forecast import forecast, rise
from optimizers.probe.gradient import Estimate, Estimators, by_group, group_of, grouped
from optimizers.probe.returns import SigmaFigures, signal_of
from optimizers.probe.tables import tables
from optimizers.scoring import Scoring
from optimizers.selection import Energy, energies_of, policy_gradient
from tests.optimizers.scored_episodes import made_up
from tests.optimizers.test_scored_es import TEMPERATURE, scored_es, weights, with_sampled_logprobs
from tests.rollouts.chatter import chatter
from tests.small_models import small_model

SETTINGS: dict[str, Any] = {
    "prompts": 4,
    "group_size": 3,
    "temperature": 1.0,
    "baseline": "best",
    "members": 8,
    "drawn_tokens": 16,
    "draws": 1,
    "sigma": 1e-3,
    "sigmas": [0.05],
    "sweep_members": 4,
    "sweep_instances": 2,
    "step": 3e-3,
    "generations": 30,
    "directions": 4,
    "tokens": 16,
    "whitening": 0.0,
    "share": 0.6,
    "energy": "backward",
    "energy_draws": 2,
    "exclude": [],
    "seed": 0,
}


def test_the_signal_is_the_share_of_variance_that_pairs_own_on_all_instances() -> None:
    """Differences are a pair's own part plus chance: of a mean over Q instances, v / (v + noise / Q) is the pair's."""
    generator = torch.Generator().manual_seed(0)
    own_N1 = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    chance_NQ = 2.0 * torch.randn(4000, 8, generator=generator, dtype=torch.float64)
    mixed_NQ = own_N1 + chance_NQ
    assert signal_of(mixed_NQ, mixed_NQ).share == pytest.approx(1 / (1 + 4 / 8), abs=0.03)
    chance = signal_of(chance_NQ, chance_NQ)
    assert chance.share < 0.06 and abs(chance.response) < 3 * chance.error
    assert signal_of(torch.zeros(5, 8), torch.zeros(5, 8)).response == 0.0
    # Success that is a tenth of the return is raised a tenth as much.
    assert signal_of(mixed_NQ, mixed_NQ / 10).response == pytest.approx(signal_of(mixed_NQ, mixed_NQ).response / 10)


def test_the_gain_is_what_a_step_along_the_estimate_earns() -> None:
    """On returns that are linear in the weights, with chance on every instance: the mean over draws, within its error."""
    generator = torch.Generator().manual_seed(1)
    pairs, instances, dimensions, sigma, step = 64, 16, 5000, 0.02, 3e-3
    slope_D = 0.05 * torch.randn(dimensions, generator=generator, dtype=torch.float64)
    forecasts, earned = [], []
    for _ in range(40):
        noise_ND = torch.randn(pairs, dimensions, generator=generator, dtype=torch.float64)
        chance_NQ = 0.3 * torch.randn(pairs, instances, generator=generator, dtype=torch.float64)
        difference_NQ = sigma * (noise_ND @ slope_D)[:, None] + chance_NQ
        estimate_D = difference_NQ.mean(1) @ noise_ND
        unit_D = estimate_D / estimate_D.norm()
        earned.append(float(slope_D @ unit_D) * step * dimensions**0.5)
        forecasts.append(step / sigma * signal_of(difference_NQ, difference_NQ).response)
    forecast_T, earned_T = torch.tensor(forecasts), torch.tensor(earned)
    error = float((forecast_T.var() / 40 + earned_T.var() / 40) ** 0.5)
    assert float(earned_T.mean()) > 10 * error
    assert float(forecast_T.mean()) == pytest.approx(float(earned_T.mean()), abs=3 * error)


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
        tokens=512,
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
        assert estimate.signal is not None
        expected = math.sqrt(512 * estimate.signal * estimate.energy / estimate.dimensions)
        # Noise of rank 1 has a little more error than its dimensions say, and the signal at most all of the estimate.
        assert estimate.cosine == pytest.approx(expected / math.sqrt(1 + expected**2), rel=0.35), estimate
        assert 0 < estimate.signal <= 1.3 and 0 < estimate.energy <= 1 and estimate.gain > 0
    scored, whole, selected = estimates
    assert scored.dimensions > whole.dimensions > selected.dimensions
    local = estimators.of("local", Local(), exclude=[])
    assert (
        local.signal is None and local.cosine > whole.cosine and local.gain > 0 and torch.equal(weights(model), before)
    )
    assert scored.cosine < whole.cosine and scored.energy > whole.energy > selected.energy >= 0.3
    assert estimators.exact() > 0  # not the greatest: at a given KL the natural gradient is


def test_energies_by_differences_are_those_of_the_exact_gradient() -> None:
    """In float64, group by group, within four standard errors that are small; nothing else moves them."""
    model = small_model()
    hyper = scored_es()
    batch = with_sampled_logprobs(model, made_up(hyper.start(model, 0).ask(0)))
    actions = actions_of(batch, model.device)
    advantage_B = group_advantages(batch.return_B, torch.tensor(batch.plan.groups), "std")
    advantage_B[::2] = 0.0  # these are not scored, and count among the B
    gradient, _ = policy_gradient(model.network, actions, advantage_B, temperature=TEMPERATURE)
    network, before = PerturbedNetwork(model.network), weights(model)
    exact = by_group(energies_of(gradient, network, LowRank(rank=1, vectors="full"), None))
    found = energies_by_differences(
        Scoring(model.network, rows=4096),
        network,
        grouped(network.parameters),
        actions,
        advantage_B,
        temperature=TEMPERATURE,
        sigma=1e-5,
        draws=100,
        seed=0,
    )
    assert torch.equal(weights(model), before)
    assert found.keys() == exact.keys() and len(exact) >= 4
    for group, energy in exact.items():
        measured = found[group]
        assert measured.dimensions == energy.dimensions
        assert measured.error < 0.35 * energy.energy, group
        assert measured.energy == pytest.approx(energy.energy, abs=4 * measured.error), group


@pytest.mark.parametrize("energy", ["backward", "auto", "differences"])
def test_a_probe_measures_without_a_backward_pass_where_none_is_wanted_or_fits(
    energy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From episodes to what is shown; `auto` with a memory that refuses."""

    def refused(*_: object, **__: object) -> None:
        raise MemoryError

    if energy == "auto":
        monkeypatch.setattr(report, "policy_gradient", refused)
    settings = report.Settings(**SETTINGS | {"energy": energy})
    collector = Collector(small_model(dtype=torch.float32), chatter(success_return=2.0), rows=64)
    found = report.probe(collector.model, collector, settings, words=("model=tiny", "env=sort"))
    assert found["episodes_with_signal"] > 0
    assert sum(entry["share"] for entry in found["energy"].values()) == pytest.approx(1.0)
    without = energy != "backward"
    assert all(
        ("error" in entry) == without and ("guided_share" in entry) != without for entry in found["energy"].values()
    )
    assert [entry["name"] for entry in found["estimates"]] == (
        [] if without else ["local", "low rank", "guided", "selected 0.6"]
    )
    assert bool(found["forecast"]["narrow"]) != without
    assert 0 <= found["forecast"]["eggroll"] <= 1 and len(list(tables(found))) == (4 if without else 8) + len(
        found["forecast"]["reasons"]
    )


def test_a_rise_is_linear_at_first_and_ends_at_the_room_there_is() -> None:
    assert rise(1e-5, success=0.2, generations=30) == pytest.approx(3e-4, rel=1e-3)
    assert rise(10.0, success=0.2, generations=30) == pytest.approx(0.8)
    assert rise(-0.1, success=0.2, generations=30) == 0.0 == rise(0.1, success=1.0, generations=30)
    step_by_step = 0.3
    for _ in range(1000):  # each generation gains the same share of what is left
        step_by_step += 0.0007 * (1 - step_by_step) / 0.7
    assert 0.3 + rise(0.0007, success=0.3, generations=1000) == pytest.approx(step_by_step, abs=1e-3)


def test_the_commands_words_name_the_same_model_and_task() -> None:
    """The path of a model, too, and a task's options; not what the probe alone is told."""
    overrides = ["model=hf", "model.path=my model", "env=recall", "env.delay=4", "probe.pairs=8", "out=there.json"]
    words = same_words({"model": "hf", "env": "recall"}, overrides)
    assert words == ("model=hf", "env=recall", "'model.path=my model'", "env.delay=4")


def test_the_forecast_gives_a_command_and_says_why_not() -> None:
    def estimate(name: str, gain: float) -> Estimate:
        return Estimate(name=name, cosine=0.01, error=0.0, signal=0.1, dimensions=10, energy=0.5, gain=gain)

    def swept(sigma: float, gain: float, error: float) -> SigmaFigures:
        return SigmaFigures(
            sigma=sigma, success=0.2, better=0.5, dead=0.2, solved=0.1, signal=0.3, gain=gain, error=error
        )

    exclude = ["model.layers.*.mlp.*", "lm_head.weight"]
    told = partial(
        forecast, success=0.2, generations=30, members=64, exclude=exclude, words=("model=tiny", "env=recall")
    )
    scores = told([estimate("local", 0.04), estimate("guided", 0.09)], [], scored=40)
    assert not scores.learns and scores.eggroll == 0.0, "no run of scored ES is forecast"
    assert "gains 0.040 at a KL of 0.1" in scores.reasons[1]
    assert scores.command == "evotext train algorithm=scored_es model=tiny env=recall"
    # The words that a shell hands on are those that the command line reads.
    narrow = shlex.split(scores.narrow)
    assert [word for word in narrow if word not in scores.command.split()] == [narrow[3]]
    parsed = OverridesParser.create().parse_override(narrow[3])
    assert parsed.get_key_element() == "algorithm.exclude" and parsed.value() == exclude
    dead = told([], [], scored=0, exclude=[])
    assert not dead.learns and dead.narrow == "" and any("too few episodes" in reason for reason in dead.reasons)
    by_returns = told([estimate("local", 0.01)], [swept(0.01, 0.01, 0.004), swept(0.02, 0.03, 0.005)], scored=40)
    assert by_returns.learns and by_returns.eggroll == rise(0.03, success=0.2, generations=30)
    assert "algorithm=eggroll algorithm.sigma=0.02 algorithm.population=64" in by_returns.command
    chance = told([estimate("local", 0.001)], [swept(0.02, 0.03, 0.02)], scored=40)
    assert not chance.learns and "scored_es" in chance.command and "may be chance" in " ".join(chance.reasons)

"""Scored ES against the policy gradient by autograd, in float64: several turns, padded rows, every baseline."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from evotext.models.language_model import LanguageModel
from evotext.noise import NoiseKey
from evotext.optimization.schedules import Constant
from evotext.policy.actions import actions_of
from evotext.policy.advantages import group_advantages
from evotext.types import Outcome, Trajectories
from optimizers import ScoredES
from optimizers.perturbations import FullRank, Guided, LowRank
from optimizers.scored_es import ScoredESLearner
from optimizers.scores import clipped, episodes_to_score, score_weights
from optimizers.selection import Energy, choose
from optimizers.selection import policy_gradient as gradient_by_parameter
from tests.optimizers.scored_episodes import made_up
from tests.small_models import small_model

TEMPERATURE = 0.8


def scored_es(**changes: Any) -> ScoredES:
    settings: dict[str, Any] = {
        "prompts": 3,
        "group_size": 4,
        "temperature": TEMPERATURE,
        "baseline": "std",
        "negative_weight": 1.0,
        "unfinished": "masked",
        "population": 64,
        "antithetic": True,
        "scored_episodes": 2,
        "context": "perturbed",
        "scored_tokens": 2,
        "sigma": 1e-4,
        "perturbation": LowRank(rank=1, vectors="full"),
        "exclude": [],
        "select": None,
        "clip_deviations": None,
        "steps": 1,
        "clip_low": 0.2,
        "clip_high": 0.2,
        "kl_target": None,
        "kl_episodes": 64,
        "micro_rows": 1024,
        "narrow_weights": "masters",
        "optimizer": partial(torch.optim.SGD, lr=1.0),
        "sigma_schedule": Constant(),
        "learning_rate_schedule": Constant(),
    }
    return ScoredES(**settings | changes)


def weights(model: LanguageModel) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.network.parameters()])


def policy_gradient(model: LanguageModel, batch: Trajectories, advantage_B: Tensor) -> Tensor:
    """Of (1 / B) sum_j A_j sum_t log pi, row by row and unpadded: REINFORCE, or GRPO with a constant normalisation."""
    objective = torch.zeros((), dtype=torch.float64)
    for row, advantage in enumerate(advantage_B.tolist()):
        ids_T = batch.tokens_BT[row, : int(batch.length_B[row])]
        logprob_TV = (model.network(input_ids=ids_T[None]).logits[0] / TEMPERATURE).log_softmax(-1)
        for t in batch.policy_mask_BT[row].nonzero()[:, 0].tolist():
            objective = objective + advantage * logprob_TV[t - 1, ids_T[t]]
    model.network.zero_grad()
    (objective / len(advantage_B)).backward()
    gradient = torch.cat([p.grad.flatten() for p in model.network.parameters() if p.grad is not None])
    model.network.zero_grad()
    return gradient


def mean_estimate(
    hyper: ScoredES, generations: int, *, directions: Tensor, truncated: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor, Tensor]:
    """The estimate's components along some directions over many generations of one batch, (G, X); the batch's gradient."""
    model = small_model()
    learner = hyper.start(model, 0)
    start, found = weights(model), []
    batch = made_up(learner.ask(0), truncated=truncated)
    for generation in range(generations):
        plan = learner.ask(generation)
        learner.tell(made_up(plan, truncated=truncated))
        found.append(directions @ (weights(model) - start))  # SGD of rate 1: the step is the estimate
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(start.clone(), model.network.parameters())
    compared = ~batch.truncated_B
    advantage_B = torch.zeros(len(compared), dtype=torch.float64)
    advantage_B[compared] = group_advantages(
        batch.return_B[compared], torch.tensor(batch.plan.groups)[compared], hyper.baseline
    )
    return torch.stack(found), policy_gradient(model, batch, advantage_B), advantage_B


@pytest.mark.parametrize("baseline", ["std", "batch", "best"])
@pytest.mark.parametrize("antithetic", [True, False])
def test_the_expectation_is_the_policy_gradient(baseline: str, antithetic: bool) -> None:
    """GRPO's and REINFORCE's objectives; rows of several turns, of uneven length, two of them cut off by a limit."""
    hyper = scored_es(baseline=baseline, antithetic=antithetic, population=64)
    model = small_model()
    batch, cut = made_up(hyper.start(model, 0).ask(0), truncated=(1, 6)), (1, 6)
    compared = ~batch.truncated_B
    advantage_B = torch.zeros(12, dtype=torch.float64)
    advantage_B[compared] = group_advantages(
        batch.return_B[compared], torch.tensor(batch.plan.groups)[compared], hyper.baseline
    )
    gradient = policy_gradient(model, batch, advantage_B)
    # Along the gradient itself and across it: means of many draws, each with its own standard error.
    generator = torch.Generator().manual_seed(4)
    across = torch.randn(3, len(gradient), generator=generator, dtype=torch.float64)
    directions = torch.cat([gradient[None], across * gradient.norm() / across.norm(dim=1, keepdim=True)])
    found_GX, again, _ = mean_estimate(hyper, 60, directions=directions, truncated=cut)
    torch.testing.assert_close(again, gradient, rtol=0, atol=1e-12)
    expected_X = directions @ gradient
    error_X = found_GX.std(0) / len(found_GX) ** 0.5
    assert float(error_X[0]) < 0.25 * float(expected_X[0]), "the test must be able to tell the gradient from nothing"
    assert bool(((found_GX.mean(0) - expected_X).abs() < 4.5 * error_X).all())


def test_one_pair_measures_the_directional_derivative_to_second_order() -> None:
    """With every episode scored the step is (g . E + O(sigma^2)) E: half the sigma, a quarter of the error."""
    errors = []
    for sigma in (2e-3, 1e-3):
        model = small_model()
        hyper = scored_es(
            sigma=sigma, population=2, scored_episodes=64, perturbation=FullRank(vectors="full"), baseline="none"
        )
        learner = hyper.start(model, 0)
        plan = learner.ask(0)
        batch, before = made_up(plan), weights(model)
        advantage_B = group_advantages(batch.return_B, torch.tensor(plan.groups), "none")
        gradient = policy_gradient(model, batch, advantage_B)
        key = NoiseKey(seed=0, generation=0, population=2, antithetic=True, sigma=sigma)
        units = dict(learner._guide.draw(key).combine(torch.tensor([1.0, 0.0], dtype=torch.float64)))
        unit = torch.cat([units[name].flatten() for name, _ in model.network.named_parameters()])
        learner.tell(batch)
        measured = float((weights(model) - before) @ unit) / float(unit @ unit)
        errors.append(abs(measured - float(gradient @ unit)))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)


def test_in_the_second_step_the_ratio_is_clipped_as_in_the_surrogate() -> None:
    generator = torch.Generator().manual_seed(0)
    logprob = torch.randn(40, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    old = (logprob + 0.4 * torch.randn(40, 3, generator=generator, dtype=torch.float64)).detach()
    advantage = torch.randn(40, 1, generator=generator, dtype=torch.float64).expand(40, 3)
    ratio = (logprob - old).exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - 0.1, 1 + 0.3) * advantage).sum()
    (expected,) = torch.autograd.grad(surrogate, logprob)
    found = score_weights(logprob.detach(), old, advantage, 0.1, 0.3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert 0 < int((found == 0).sum()) < found.numel()


def test_deltas_far_out_are_cut() -> None:
    delta_N = torch.cat([torch.linspace(-1, 1, 101), torch.tensor([40.0, -300.0])]).double()
    kept_N, figures = clipped(delta_N, 3.0)
    assert torch.equal(kept_N[:101], delta_N[:101])
    assert 1.0 < kept_N[101] < 3.0 and kept_N[102] == pytest.approx(-float(kept_N[101]), rel=0.05)
    assert figures["scored/clipped"] == pytest.approx(2 / 103)
    assert torch.equal(clipped(delta_N, None)[0], delta_N)
    few = torch.tensor([0.0, 0.0, 0.0, 5.0])
    assert torch.equal(clipped(few, 3.0)[0], few)


def test_every_episode_with_an_advantage_is_scored_as_often_as_any_other() -> None:
    scored_M, length_B = torch.tensor([2, 3, 5, 7, 11, 13, 17]), torch.arange(20) % 7 + 2

    def drawn(generation: int) -> Tensor:
        key = NoiseKey(seed=0, generation=generation, population=50, antithetic=False, sigma=0.1)
        return episodes_to_score(scored_M, length_B, key, 3)

    counts = drawn(4).flatten().bincount(minlength=20)[scored_M]
    assert drawn(4).shape == (50, 3)
    assert int(counts.sum()) == 150 and int(counts.max() - counts.min()) <= 1
    assert not torch.equal(drawn(4), drawn(5))


def test_a_generation_without_signal_changes_nothing() -> None:
    model = small_model()
    learner = scored_es().start(model, 0)
    batch, before = made_up(learner.ask(0)), weights(model)
    batch.return_B.fill_(1.0)
    report = learner.tell(batch)
    assert report.outcome is Outcome.NO_SIGNAL and report.cost.updates == 0 and report.cost.flops == 0.0
    assert torch.equal(weights(model), before)


def kl_of(model: LanguageModel, before: LanguageModel, batch: Trajectories) -> float:
    """k3 over all policy tokens, an episode."""
    total = 0.0
    for row in range(len(batch.length_B)):
        ids_T = batch.tokens_BT[row, : int(batch.length_B[row])]
        now, then = (
            (m.network(input_ids=ids_T[None]).logits[0] / TEMPERATURE).log_softmax(-1).detach() for m in (model, before)
        )
        for t in batch.policy_mask_BT[row].nonzero()[:, 0].tolist():
            d = float(now[t - 1, ids_T[t]] - then[t - 1, ids_T[t]])
            total += math.expm1(d) - d
    return total / len(batch.length_B)


def with_sampled_logprobs(model: LanguageModel, batch: Trajectories) -> Trajectories:
    """Return what the sampler would have recorded, in float64."""
    logprob_BT = torch.zeros(batch.tokens_BT.shape, dtype=torch.float64)
    for row in range(len(batch.length_B)):
        ids_T = batch.tokens_BT[row, : int(batch.length_B[row])]
        logprob_TV = (model.network(input_ids=ids_T[None]).logits[0] / TEMPERATURE).log_softmax(-1).detach()
        for t in batch.policy_mask_BT[row].nonzero()[:, 0].tolist():
            logprob_BT[row, t] = logprob_TV[t - 1, ids_T[t]]
    return replace(batch, logprob_BT=logprob_BT)


@pytest.mark.parametrize("perturbation", ["low_rank", "guided"])
def test_the_steps_length_follows_the_kl(perturbation: str) -> None:
    """A step much too long is taken back in part; one too short is followed by a longer one."""
    chosen = {
        "low_rank": LowRank(rank=1, vectors="full"),
        "guided": Guided(rank=1, directions=6, tokens=9, whitening=0.0, refresh=1, vectors="frozen"),
    }[perturbation]
    target, steps = 1e-4, {}
    for rate, aim in ((3e-3, None), (3e-3, target), (1e-5, target)):
        model = small_model()
        learner = scored_es(perturbation=chosen, kl_target=aim, optimizer=partial(torch.optim.Adam, lr=rate)).start(
            model, 0
        )
        batch = with_sampled_logprobs(model, made_up(learner.ask(0)))
        report, before = learner.tell(batch), small_model()
        kl = kl_of(model, before, batch)
        steps[rate, aim] = weights(model) - weights(before)
        if aim is None:
            assert kl > 4 * target and "kl" not in report.metrics and learner._length.factor == 1.0
        else:
            assert report.metrics["kl"] == pytest.approx(kl, rel=0.05), "measured on all of few episodes"
            assert report.metrics["scored/length"] < 1.0 if rate == 3e-3 else report.metrics["scored/length"] == 1.0
            factor = min(max((target / kl) ** 0.5, 0.5), 1.5)
            assert learner._length.factor == pytest.approx(report.metrics["scored/length"] * factor, rel=0.05)
            assert kl < 2 * target
    long, shortened = steps[3e-3, None], steps[3e-3, target]
    assert float(shortened @ long / (long.norm() * shortened.norm())) > 0.999, "the same direction"


def test_adams_state_lives_in_the_small_space() -> None:
    model = small_model()
    learner = scored_es(
        perturbation=Guided(rank=1, directions=4, tokens=5, whitening=0.0, refresh=1, vectors="frozen"),
        optimizer=partial(torch.optim.Adam, lr=1e-3),
    ).start(model, 0)
    report = learner.tell(made_up(learner.ask(0)))
    state = learner._weights.state_dict()["optimizer"]["state"]  # type: ignore[index]
    held = sum(value.numel() for entry in state.values() for value in entry.values() if value.ndim)
    dimensions = report.metrics["dimensions"]
    assert held == 2 * dimensions < model.parameter_count


def test_moments_follow_the_basis() -> None:
    """A first moment is carried over exactly if the new basis spans the old; with the same span, both moments' steps agree."""
    model = small_model()
    learner: ScoredESLearner = scored_es(
        perturbation=Guided(rank=1, directions=4, tokens=5, whitening=0.0, refresh=1, vectors="frozen"),
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    ).start(model, 0)
    learner.tell(made_up(learner.ask(0)))
    basis = learner._guide.basis
    assert basis is not None
    name = "model.layers.0.self_attn.q_proj.weight"
    coordinates = learner._weights._coordinates[name]
    moment = learner._weights._optimizer.state[coordinates]["momentum_buffer"]
    whole = moment @ basis.inputs[name].T
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    turned = type(basis)(
        inputs={n: V @ turn for n, V in basis.inputs.items()}, tokens=basis.tokens, lengths=basis.lengths
    )
    learner._weights.move_to(turned)
    coordinates = learner._weights._coordinates[name]
    carried = learner._weights._optimizer.state[coordinates]["momentum_buffer"]
    torch.testing.assert_close(carried @ turned.inputs[name].T, whole, rtol=0, atol=1e-12)


def test_rows_that_stand_in_other_batches_get_the_same_scores() -> None:
    found = []
    for rows in (1024, 3):
        model = small_model()
        learner = scored_es(micro_rows=rows).start(model, 0)
        learner.tell(made_up(learner.ask(0)))
        found.append(weights(model))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-8)


def test_the_cost_is_forward_passes_alone() -> None:
    model = small_model()
    learner = scored_es().start(model, 0)
    plan = learner.ask(0)
    batch = made_up(plan)
    report = learner.tell(batch)
    scored = int((group_advantages(batch.return_B, torch.tensor(plan.groups), "std") != 0).sum())
    assert report.metrics["scored/episodes"] == scored
    rows = 64 * 2
    tokens = actions_of(batch, model.device).tokens_BT.shape[1]
    weights_at_most = 2.0 * model.matmul_parameter_count * rows * tokens
    assert report.cost.backward_flops == 0.0
    assert 0.3 * weights_at_most < report.cost.flops < 1.5 * weights_at_most


def test_odd_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"population: expected an even number"):
        scored_es(population=7)


def test_selection_takes_the_densest_until_they_hold_the_share() -> None:
    energies = {
        "a": Energy(energy=5.0, dimensions=10),
        "b": Energy(energy=4.0, dimensions=2),
        "c": Energy(energy=1.0, dimensions=1),
    }
    assert choose(energies, 0.4) == ("b",)
    assert choose(energies, 0.41) == ("b", "c")
    assert choose(energies, 0.51) == ("a", "b", "c")
    assert choose({"a": Energy(energy=0.0, dimensions=3)}, 0.9) == ("a",)


@pytest.mark.parametrize("perturbation", ["low_rank", "guided"])
def test_only_what_was_selected_moves_and_the_backward_pass_is_charged(perturbation: str) -> None:
    chosen = {
        "low_rank": LowRank(rank=1, vectors="full"),
        "guided": Guided(rank=1, directions=6, tokens=9, whitening=0.0, refresh=1, vectors="frozen"),
    }[perturbation]
    model = small_model()
    learner = scored_es(perturbation=chosen, select=0.6).start(model, 0)
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    reports = []
    for generation in range(3):
        reports.append(learner.tell(made_up(learner.ask(generation), seed=generation)))
    moved = sorted(name for name, p in model.network.named_parameters() if not torch.equal(p, before[name]))
    assert moved == learner._selected and 0 < len(moved) < len(before) / 2
    assert [report.cost.backward_flops > 0 for report in reports] == [True, False, False]
    resumed = scored_es(perturbation=chosen, select=0.6).start(model, 0)
    resumed.load_state_dict(learner.state_dict())
    assert resumed._selected == moved
    at = weights(model)
    learner.tell(made_up(learner.ask(3), seed=3))
    expected = weights(model)
    torch.nn.utils.vector_to_parameters(at.clone(), model.network.parameters())
    resumed.tell(made_up(resumed.ask(3), seed=3))
    assert torch.equal(weights(model), expected)


def test_the_gradient_that_selection_reads_is_the_policy_gradient() -> None:
    model = small_model()
    batch = made_up(scored_es().start(model, 0).ask(0))
    advantage_B = group_advantages(batch.return_B, torch.tensor(batch.plan.groups), "std")
    expected = policy_gradient(model, batch, advantage_B)
    found, cost = gradient_by_parameter(
        model.network, actions_of(batch, model.device), advantage_B, temperature=TEMPERATURE
    )
    whole = torch.cat([found[name].flatten() for name, _ in model.network.named_parameters()])
    torch.testing.assert_close(whole, expected, rtol=0, atol=1e-12)
    assert cost.backward_flops == pytest.approx(2 / 3 * cost.flops, rel=0.01)


@pytest.mark.parametrize(("antithetic", "rows", "population"), [(False, 8, 4), (False, 4, 2), (True, 6, 2)])
def test_a_generation_that_the_budget_cuts_is_scored_by_as_many_fewer_members(
    antithetic: bool, rows: int, population: int
) -> None:
    learner = scored_es(prompts=4, group_size=2, population=4, antithetic=antithetic).start(small_model(), 0)
    assert learner._population(rows) == population

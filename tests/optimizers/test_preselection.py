"""`select` of the population algorithms: the first generation chooses, and what follows is a run that excludes the rest."""

import copy
from fnmatch import fnmatchcase
from typing import Any

import pytest
import torch
from torch import Tensor

from evotext.models.language_model import LanguageModel
from evotext.noise import Perturbation
from evotext.policy.actions import actions_of
from evotext.policy.advantages import group_advantages
from evotext.types import Outcome, Trajectories, UpdateReport
from optimizers.evolution_strategy import EvolutionStrategyLearner
from optimizers.perturbations import FullRank, Guided, LowRank
from optimizers.perturbed import PerturbedNetwork
from optimizers.preselection import GROUP_SIZE, PROMPTS, TEMPERATURE
from optimizers.selection import choose, energies_of, excluding, policy_gradient
from tests.optimizers.generations import POPULATION, eggroll, told
from tests.optimizers.generations import PROMPTS as INSTANCES
from tests.optimizers.scored_episodes import made_up
from tests.small_models import small_model

SHARE = 0.5
GUIDED = Guided(rank=1, directions=6, tokens=40, whitening=0.0, refresh=100, vectors="frozen")


def weights(model: LanguageModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.network.named_parameters()}


def begun(**changes: Any) -> tuple[LanguageModel, EvolutionStrategyLearner, Trajectories, UpdateReport]:
    """A learner after its first generation."""
    model = small_model()
    learner = eggroll(select=SHARE, **changes).start(model, 4)
    batch = made_up(learner.ask(0))
    return model, learner, batch, learner.tell(batch)


def chosen_by_hand(batch: Trajectories) -> list[str]:
    model = small_model()
    advantage_B = group_advantages(batch.return_B, torch.tensor(batch.plan.groups), "best")
    gradient, _ = policy_gradient(model.network, actions_of(batch, model.device), advantage_B, temperature=TEMPERATURE)
    return list(
        choose(energies_of(gradient, PerturbedNetwork(model.network), LowRank(rank=1, vectors="full"), None), SHARE)
    )


def returns() -> Tensor:
    return torch.randn(POPULATION * INSTANCES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_first_generation_is_the_unperturbed_policys_and_is_charged() -> None:
    model, _, batch, report = begun()
    assert batch.plan.noise is None and len(batch.plan.instances) == PROMPTS * GROUP_SIZE
    assert batch.plan.smallest_part == PROMPTS * GROUP_SIZE
    assert report.outcome is Outcome.HELD and report.cost.updates == 0
    assert report.cost.flops > report.cost.backward_flops > 0
    parameters = PerturbedNetwork(model.network).parameters
    assert report.metrics == {"dimensions": sum(torch.Size(parameters[n].shape).numel() for n in chosen_by_hand(batch))}
    assert all(
        torch.equal(p, before)
        for p, before in zip(weights(model).values(), weights(small_model()).values(), strict=True)
    )


def test_patterns_leave_out_the_others_and_are_few() -> None:
    names = [f"layers.{layer}.{part}" for layer in range(12) for part in ("q", "k", "norm")] + ["head"]
    chosen = ["layers.3.q", "head"]
    patterns = excluding(names, chosen)
    assert [name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns)] == chosen
    assert len(patterns) == 11 + 2, "of the layers that have a chosen one each, of the others one for all"


@pytest.mark.parametrize("perturbation", [LowRank(rank=2, vectors="full"), FullRank(vectors="full")])
def test_what_follows_is_a_run_that_excludes_the_others(perturbation: Perturbation) -> None:
    """To the last bit, and of a few matrices alone."""
    model, learner, batch, _ = begun(perturbation=perturbation)
    chosen, plain = chosen_by_hand(batch), small_model()
    before = weights(plain)
    assert 0 < len(chosen) < len(before) / 2
    other = eggroll(perturbation=perturbation, exclude=excluding(list(before), chosen)).start(plain, 4)
    learner.tell(told(learner.ask(1), returns()))
    other.tell(told(other.ask(1), returns()))
    found, expected = weights(model), weights(plain)
    for name in before:
        assert torch.equal(found[name], expected[name]), name
        assert torch.equal(found[name], before[name]) == (name not in chosen), name


def test_guided_noise_chooses_within_its_directions() -> None:
    model, learner, _, report = begun(perturbation=GUIDED)
    whole = sum(p.numel() for p in model.network.parameters())
    assert 0 < report.metrics["dimensions"] < whole / 4
    before = weights(model)
    plan = learner.ask(1)
    batch = made_up(plan)
    learner.tell(batch)
    moved = [name for name, p in weights(model).items() if not torch.equal(p, before[name])]
    assert 0 < len(moved) < len(before) / 2


def test_a_run_that_stopped_goes_on_with_what_it_has_chosen() -> None:
    model, learner, _, _ = begun(sigma="auto")
    saved = copy.deepcopy(learner.state_dict())
    other_model = small_model()
    resumed = eggroll(select=SHARE, sigma="auto").start(other_model, 4)
    resumed.load_state_dict(saved)
    for each in (learner, resumed):
        each.tell(told(each.ask(1), returns()))
    assert all(torch.equal(weights(model)[name], p) for name, p in weights(other_model).items())


def test_without_a_signal_all_move_and_the_user_hears_of_it() -> None:
    model = small_model()
    learner = eggroll(select=SHARE).start(model, 4)
    plan = learner.ask(0)
    report = learner.tell(told(plan, torch.zeros(len(plan.instances))))
    assert any("all matrices move" in note for note in report.notes)
    before = weights(model)
    learner.tell(told(learner.ask(1), returns()))
    assert all(not torch.equal(p, before[name]) for name, p in weights(model).items())


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match="select"):
        eggroll(select=share)

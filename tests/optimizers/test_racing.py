"""Instances that a race has chosen: those that tell members apart; and the estimate on them is what it is without a race."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from evotext.keys.instances import train_instances
from evotext.models.language_model import LanguageModel
from evotext.types import Outcome, RolloutPlan
from optimizers.evolution_strategy import EvolutionStrategyLearner
from optimizers.racing import Racing, with_spread
from optimizers.resampling import Resampling
from tests.optimizers.generations import POPULATION, PROMPTS, eggroll, told
from tests.small_models import small_model

RACE = Racing(pairs=2, candidates=4)
CANDIDATES = PROMPTS * RACE.candidates


def raced(
    informative: tuple[int, ...], generation: int = 0, **changes: Any
) -> tuple[LanguageModel, EvolutionStrategyLearner]:
    """A learner after a race in which returns differed on these candidates alone."""
    model = small_model()
    learner = eggroll(racing=RACE, **changes).start(model, 4)
    return_PC = torch.linspace(0, 1, CANDIDATES, dtype=torch.float64).repeat(RACE.members, 1)
    return_PC[1, list(informative)] += 1
    learner.tell(told(learner.ask(generation), return_PC.flatten()))
    return model, learner


def returns() -> Tensor:
    return torch.randn(POPULATION * PROMPTS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_few_members_try_several_times_as_many_instances() -> None:
    plan = eggroll(racing=RACE).start(small_model(), 4).ask(6)
    assert plan.instances == train_instances(4, 6, CANDIDATES) * 4
    assert plan.members == tuple(member for member in range(4) for _ in range(CANDIDATES))
    assert plan.smallest_part == len(plan.instances)  # half a race is worth nothing


@pytest.mark.parametrize(
    ("informative", "chosen"),
    [((1, 5, 6, 11), (1, 5, 6)), ((11, 2), (2, 11)), ((), (0, 1, 2))],  # as drawn; fewer; a population may find more
)
def test_instances_on_which_returns_differ_are_taken(informative: tuple[int, ...], chosen: tuple[int, ...]) -> None:
    _, learner = raced(informative)
    candidates = train_instances(4, 0, CANDIDATES)
    plan = learner.ask(1)
    assert plan.instances == tuple(candidates[i] for i in chosen) * POPULATION
    assert plan.members is not None and plan.members[-1] == POPULATION - 1


def test_the_choice_is_that_of_a_loop() -> None:
    return_PC = torch.randint(0, 2, (3, 40), generator=torch.Generator().manual_seed(1)).double()
    expected = [c for c in range(40) if len({float(r) for r in return_PC[:, c]}) > 1]
    chosen, share = with_spread(return_PC, range(40), 1000)
    assert list(chosen) == expected and share == len(expected) / 40 and 0 < share < 1


def test_a_race_changes_nothing_and_says_what_it_found() -> None:
    model = small_model()
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    learner = eggroll(racing=RACE).start(model, 4)
    plan = learner.ask(0)
    return_PC = torch.zeros(RACE.members, CANDIDATES, dtype=torch.float64)
    return_PC[0, :3] = 1
    report = learner.tell(told(plan, return_PC.flatten()))
    assert report.outcome is Outcome.HELD and report.cost.updates == 0
    assert report.metrics == {"racing/informative": 3 / CANDIDATES}
    assert all(torch.equal(p, before[name]) for name, p in model.network.named_parameters())


def test_the_estimate_is_what_it_is_without_a_race() -> None:
    """Equal to the last bit: nothing of the race enters but its instances. Given these, the estimate is as unbiased as ever."""
    model, learner = raced((2, 3, 7))
    plain = small_model()
    other = eggroll().start(plain, 4)
    learner.tell(told(learner.ask(1), returns()))
    other.tell(told(other.ask(1), returns()))
    for name, parameter in model.network.named_parameters():
        assert torch.equal(parameter, dict(plain.network.named_parameters())[name]), name
    assert learner.ask(2).instances == train_instances(4, 2, CANDIDATES) * 4  # and the next race


def unit_noise(plan: RolloutPlan, member: int) -> Tensor:
    weight_P = torch.zeros(plan.members[-1] + 1, dtype=torch.float64)  # type: ignore[index]
    weight_P[member] = 1.0
    assert plan.noise is not None
    return torch.cat([unit.flatten() for _, unit in plan.noise.combine(weight_P)])


def test_the_members_of_a_race_are_others() -> None:
    """Were they the same, instances on which one of them was lucky would count its luck again: the winner's curse."""
    _, learner = raced((2, 3, 7))
    race, plan = eggroll(racing=RACE).start(small_model(), 4).ask(0), learner.ask(1)
    ours = torch.stack([unit_noise(plan, member) for member in range(POPULATION)])
    theirs = torch.stack([unit_noise(race, member) for member in range(RACE.members)])
    correlation = torch.corrcoef(torch.cat([ours, theirs]))
    assert (
        float(correlation[:POPULATION, POPULATION:].abs().max()) < 5 / ours.shape[1] ** 0.5 * 2
    )  # rank 2: fewer numbers
    assert float(correlation[0, 1]) == pytest.approx(-1)  # as of a mirrored pair


def test_a_run_that_stopped_after_a_race_goes_on_with_what_it_found() -> None:
    model, learner = raced((2, 3, 7))
    saved = copy.deepcopy(learner.state_dict())
    other_model = small_model()
    resumed = eggroll(racing=RACE).start(other_model, 4)
    resumed.load_state_dict(saved)
    assert resumed.ask(1).instances == learner.ask(1).instances
    learner.tell(told(learner.ask(1), returns()))
    resumed.tell(told(resumed.ask(1), returns()))
    assert torch.equal(model.network.lm_head.weight, other_model.network.lm_head.weight)
    assert resumed.ask(2).instances == learner.ask(2).instances


@pytest.mark.parametrize("changes", [{"members_per_instance": 2}, {"resampling": Resampling(every=2)}])
def test_a_race_for_instances_that_are_not_shared_or_not_fresh_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"racing\.pairs: expected null"):
        eggroll(racing=RACE, **changes)

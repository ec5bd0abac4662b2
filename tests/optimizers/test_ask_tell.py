"""An evolution strategy on any module: what members are, and that the step is the sum that its equation says."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evotext.noise import Perturbation
from optimizers import ES
from optimizers.fitness_shaping import centered_ranks, raw, z_score
from optimizers.perturbations import FullRank, LowRank

POPULATION, SIGMA, RATE = 6, 0.1, 0.5
PERTURBATIONS = [LowRank(rank=2, vectors="full"), LowRank(rank=1, vectors="frozen"), FullRank(vectors="full")]


class Net(nn.Module):
    """Parameters of none to four dimensions, one used twice and one that stays."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.convolution = nn.Conv2d(1, 3, 2)
        self.head = nn.Linear(3, 4)
        self.tied = nn.Linear(4, 5, bias=False)
        self.tied.weight = self.embedding.weight
        self.norm = nn.LayerNorm(5)
        self.norm.bias.requires_grad_(False)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.double()

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(ids_BT)
        seen_BC = self.convolution(x_BTD[:, None]).tanh().mean((2, 3))
        return self.norm(self.tied(self.head(seen_BC))) * self.scale


def strategy(module: nn.Module, **settings: Any) -> ES:
    given: dict[str, Any] = {
        "population": POPULATION,
        "sigma": SIGMA,
        "perturbation": PERTURBATIONS[0],
        "fitness_shaping": z_score,
        "optimizer": partial(torch.optim.SGD, lr=RATE),
        "antithetic": True,
        "seed": 3,
    }
    return ES(module, **given | settings)


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("shaping", [raw, z_score, centered_ranks])
@pytest.mark.parametrize("perturbation", PERTURBATIONS)
def test_the_step_is_the_weighted_sum_of_what_the_members_ran_with(
    perturbation: Perturbation, shaping: Callable[[Tensor], Tensor], antithetic: bool
) -> None:
    module = net()
    es = strategy(module, perturbation=perturbation, fitness_shaping=shaping, antithetic=antithetic)
    for generation in range(2):
        before, members = copied(module), es.ask()
        noise = [{name: (w - before[name]) / SIGMA for name, w in members[i].items()} for i in range(POPULATION)]
        returns_PQ = torch.rand(POPULATION, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(generation))
        weight = shaping(returns_PQ)
        es.tell(returns_PQ)
        for name, now in module.named_parameters():
            moved = sum(weight[i] * noise[i][name] for i in range(POPULATION)) if name in noise[0] else torch.zeros(())
            expected = before[name] + RATE / (POPULATION * SIGMA) * moved
            torch.testing.assert_close(now.detach(), expected.view_as(now), atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("perturbation", PERTURBATIONS)
def test_one_batched_pass_is_every_member_by_itself(perturbation: Perturbation) -> None:
    module = net()
    members = strategy(module, perturbation=perturbation).ask()
    ids_PBT = torch.arange(POPULATION * 2 * 3).view(POPULATION, 2, 3) % 5
    together = members(ids_PBT)
    for i in range(len(members)):
        alone = torch.func.functional_call(module, members[i], (ids_PBT[i],))
        torch.testing.assert_close(together[i], alone.detach(), atol=1e-12, rtol=1e-12)
    assert together.shape == (POPULATION, 2, 5) and not together.requires_grad


def test_members_are_the_same_until_they_are_told_of_and_others_then() -> None:
    es = strategy(net())
    first, again = es.ask()[0], es.ask()[0]
    assert all(torch.equal(first[name], again[name]) for name in first)
    es.tell(torch.ones(POPULATION))
    assert not any(torch.equal(first[name], other) for name, other in es.ask()[0].items())


def test_pairs_mirror_each_other() -> None:
    module = net()
    members = strategy(module).ask()
    stored = dict(module.named_parameters())
    for name, plus in members[2].items():
        torch.testing.assert_close((plus + members[3][name]) / 2, stored[name].detach())
        assert not torch.equal(plus, members[4][name])


def test_what_stays_is_not_among_the_members() -> None:
    assert "norm.bias" not in strategy(net()).ask()[0]
    frozen = set(strategy(net(), perturbation=PERTURBATIONS[1]).ask()[0])
    assert frozen == {"embedding.weight", "convolution.weight", "head.weight"}


def test_equal_returns_change_nothing() -> None:
    module = net()
    es, before = strategy(module, optimizer=partial(torch.optim.Adam, lr=0.1)), copied(module)
    figures = es.tell(torch.full((POPULATION, 2), 0.1))
    assert all(torch.equal(before[name], p) for name, p in module.named_parameters())
    assert es.generation == 1 and "update_norm" not in figures and figures["fitness/std"] == 0.0


def test_it_goes_on_where_it_stopped() -> None:
    def returns(es: ES) -> Tensor:
        return torch.stack([-es.ask()[i]["head.weight"].square().sum() for i in range(POPULATION)])

    one, other = net(), net()
    adam = partial(torch.optim.Adam, lr=0.05)
    es = strategy(one, optimizer=adam)
    for _ in range(3):
        es.tell(returns(es))
    other.load_state_dict(one.state_dict())
    resumed = strategy(other, optimizer=adam)
    resumed.load_state_dict(es.state_dict())
    for _ in range(2):
        es.tell(returns(es))
        resumed.tell(returns(resumed))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 7}, "population: expected an even number since antithetic=True, got 7"),
        ({"population": 1}, "population"),
        ({"sigma": 0.0}, "sigma"),
        ({"optimizer": partial(torch.optim.LBFGS)}, "optimizer: expected one that takes a step"),
        ({"perturbation": "low_rank"}, "perturbation"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strategy(net(), **settings)


def test_a_module_that_cannot_move() -> None:
    with pytest.raises(ValueError, match="module: expected a parameter to perturb, got a ReLU without one"):
        strategy(nn.ReLU())


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        (torch.zeros(POPULATION - 1), r"returns: expected \(6,\) or \(6, instances\), one row a member, got \(5,\)"),
        (torch.zeros(2, POPULATION), r"got \(2, 6\)"),
        (torch.tensor([0.0, 1, 2, 3, 4, torch.nan]), "returns: expected finite numbers"),
    ],
)
def test_returns_that_cannot_be(returns: Tensor, message: str) -> None:
    module = net()
    es, before = strategy(module), copied(module)
    with pytest.raises(ValueError, match=message):
        es.tell(returns)
    assert es.generation == 0 and all(torch.equal(before[name], p) for name, p in module.named_parameters())


def test_a_member_that_does_not_exist() -> None:
    with pytest.raises(IndexError, match="expected a member from 0 to 5, got 6"):
        strategy(net()).ask()[6]
    assert len(list(strategy(net()).ask())) == POPULATION

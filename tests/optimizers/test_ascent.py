"""Steps of an evolution strategy's optimizer, and the float32 masters or the rounding of weights that are stored narrower."""

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from evotext.cli.targets import build
from evotext.optimization.factory import OptimizerFactory
from optimizers.ascent import Ascent

CONF = Path(__file__).parents[2] / "conf"
SGD = partial(torch.optim.SGD, lr=1e-3)


def test_small_steps_are_not_lost_in_bfloat16() -> None:
    """A hundred steps of 0.001 move a weight of 1 by 0.1, though bf16's spacing there is 0.008 and each one alone, added
    to the stored weight, would vanish (as they do in the published code of ES at scale).
    """
    weight = nn.Parameter(torch.linspace(1, 2, 9, dtype=torch.bfloat16))
    start = weight.detach().clone()
    assert torch.equal(start + 1e-3, start)
    ascent = Ascent({"w": weight}, SGD)
    for _ in range(100):
        ascent.step([("w", torch.ones(9))])
    assert weight.dtype == torch.bfloat16
    assert torch.equal(weight, (start.float() + 0.1).bfloat16())


def test_it_ascends_and_measures() -> None:
    """Uphill; the norm of one step and the distance from the start, which differ after a step back."""
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        weight = nn.Parameter(torch.zeros(4, dtype=dtype))
        ascent = Ascent({"w": weight}, SGD)
        assert abs(ascent.step([("w", torch.full((4,), 3.0))]) - 6e-3) < 1e-8
        assert bool((weight > 0).all())
        assert abs(ascent.step([("w", torch.full((4,), -2.0))]) - 4e-3) < 1e-8
        assert abs(ascent.drift - 2e-3) < 1e-8
        assert ascent.learning_rate.now == 1e-3
        assert weight.grad is None


def test_wide_weights_are_their_own_masters() -> None:
    """No second copy to fall out of step with weights that a checkpoint loads."""
    weight = nn.Parameter(torch.zeros(4))
    ascent = Ascent({"w": weight}, SGD)
    with torch.no_grad():
        weight.fill_(5.0)
    ascent.step([("w", torch.ones(4))])
    torch.testing.assert_close(weight.detach(), torch.full((4,), 5.001))
    assert ascent.state_dict()["masters"] == {}


@pytest.mark.parametrize(
    "optimizer", [partial(torch.optim.AdamW, lr=0.1, weight_decay=0.1), partial(torch.optim.Adafactor, lr=0.1)]
)
def test_each_parameter_steps_as_if_all_stepped_together(optimizer: OptimizerFactory) -> None:
    """One at a time, with an optimizer that counts its steps and remembers."""
    first, together = ([nn.Parameter(torch.linspace(k, k + 1, 5)) for k in range(3)] for _ in range(2))
    ascent, reference = Ascent({str(k): p for k, p in enumerate(first)}, optimizer), optimizer(together)
    for step in range(3):
        directions = [torch.randn(5, generator=torch.Generator().manual_seed(10 * step + k)) for k in range(3)]
        ascent.step((str(k), direction.clone()) for k, direction in enumerate(directions))
        for parameter, direction in zip(together, directions, strict=True):
            parameter.grad = -direction
        reference.step()
    for one, other in zip(first, together, strict=True):
        assert torch.equal(one, other)


def test_a_factored_second_moment_takes_rows_and_columns_alone() -> None:
    """Adafactor keeps O + I numbers of a matrix where Adam keeps 2 O I, and goes on from a checkpoint to the bit."""
    one, other = (nn.Parameter(torch.linspace(-1, 1, 60).view(5, 12)) for _ in range(2))
    ascent, resumed = (Ascent({"w": weight}, partial(torch.optim.Adafactor, lr=0.1)) for weight in (one, other))
    directions = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(0))
    for direction in directions[:2]:
        ascent.step([("w", direction.clone())])
    kept = [value for value in ascent.optimizer.state[one].values() if value.dim()]
    assert sum(value.numel() for value in kept) == 5 + 12
    with torch.no_grad():
        other.copy_(one)
    resumed.load_state_dict(copy.deepcopy(ascent.state_dict()))
    for each in (ascent, resumed):
        each.step([("w", directions[2].clone())])
    assert torch.equal(one, other)


def test_the_drift_of_a_large_parameter_is_estimated_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the sampling error of a hundred entries; and the start of the others is not kept."""
    monkeypatch.setattr("optimizers.ascent.SAMPLED", 100)
    weight = nn.Parameter(torch.zeros(40, 50))
    ascent = Ascent({"w": weight}, SGD)
    start = ascent.state_dict()["start"]
    assert isinstance(start, dict) and start["w"].numel() == 100
    ascent.step([("w", torch.randn(40, 50, generator=torch.Generator().manual_seed(0)))])
    assert ascent.drift == pytest.approx(float(weight.detach().norm()), rel=0.2)


def test_stochastic_rounding_keeps_small_steps_on_average() -> None:
    """A hundred steps of 0.001 on 20,000 weights of 1, whose spacing is 0.008: nearest rounding would leave them at 1. The
    mean is within four standard errors of 1.1, every weight is one of bf16's, and no float32 copy stays behind.
    """
    weight = nn.Parameter(torch.ones(20_000, dtype=torch.bfloat16))
    ascent = Ascent({"w": weight}, SGD, narrow="stochastic", seed=1)
    for _ in range(100):
        ascent.step([("w", torch.ones(20_000))])
    values = weight.detach().double()
    assert abs(float(values.mean()) - 1.1) < 4 * float(values.std()) / 20_000**0.5
    assert float(values.std()) > 0.01
    assert ascent.drift == pytest.approx(float((values - 1).norm()), rel=1e-6)
    assert ascent.state_dict()["masters"] == {}
    assert all(p.numel() == 0 for group in ascent.optimizer.param_groups for p in group["params"])


@pytest.mark.parametrize("value", [1.0 + 2**-9, -(1.0 + 2**-9), 3e-5, 0.0])
def test_stochastic_rounding_goes_to_a_neighbour(value: float) -> None:
    """Up or down by at most one unit of bf16's last place, with the right mean; what bf16 can hold stays."""
    weight = nn.Parameter(torch.zeros(10_000, dtype=torch.bfloat16))
    ascent = Ascent({"w": weight}, partial(torch.optim.SGD, lr=1.0), narrow="stochastic")
    ascent.step([("w", torch.full((10_000,), value))])
    found = weight.detach().double()
    assert found.unique().numel() <= 2
    assert float((found - value).abs().max()) <= abs(value) * 2**-7
    assert float(found.mean()) == pytest.approx(value, abs=abs(value) * 2**-7 * 4 * 0.5 / 100)


def test_stochastic_rounding_goes_on_where_it_was_stopped() -> None:
    """With an optimizer that remembers: the same bits after a restart from the stored weights and the state."""
    adam = partial(torch.optim.Adam, lr=1e-3)
    directions = [torch.randn(50, generator=torch.Generator().manual_seed(k)) for k in range(4)]
    whole = nn.Parameter(torch.ones(50, dtype=torch.bfloat16))
    ascent = Ascent({"w": whole}, adam, narrow="stochastic", seed=3)
    for direction in directions[:2]:
        ascent.step([("w", direction.clone())])
    again = nn.Parameter(whole.detach().clone())
    resumed = Ascent({"w": again}, adam, narrow="stochastic", seed=3)
    resumed.load_state_dict(copy.deepcopy(ascent.state_dict()))
    for direction in directions[2:]:
        ascent.step([("w", direction.clone())])
        resumed.step([("w", direction.clone())])
    assert torch.equal(whole, again)
    assert resumed.drift == pytest.approx(ascent.drift)


def test_stochastic_rounding_does_not_depend_on_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits from pieces of any size, and no two pieces with the same random numbers."""
    found = []
    for size in (2**20, 96, 7):
        monkeypatch.setattr("evotext.optimization.master_weights.ROUNDED_AT_ONCE", size)
        weight = nn.Parameter(torch.ones(20, 10, dtype=torch.bfloat16))
        Ascent({"w": weight}, SGD, narrow="stochastic", seed=5).step([("w", torch.full((20, 10), 4.0))])
        found.append(weight.detach())
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert len(found[0].unique()) == 2


def test_adafactor_is_one_line_and_no_part_of_a_matrix_steps_by_it() -> None:
    """The option takes the place of an algorithm's own optimizer, with an lr of its own, which a word may still set."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(
            "config", ["algorithm=eggroll", "+algorithm/optimizer=adafactor", "+algorithm.optimizer.beta2_decay=-0.5"]
        )
    hyper = build(config, "algorithm")
    made = hyper.optimizer([nn.Parameter(torch.zeros(2, 3))])
    assert isinstance(made, torch.optim.Adafactor)
    assert (made.defaults["lr"], made.defaults["beta2_decay"]) == (0.03, -0.5)
    with pytest.raises(ValueError, match="^optimizer: expected one that steps on each entry by itself .* Adafactor$"):
        hyper.check_parts()

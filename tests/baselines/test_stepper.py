"""Steps in float32 for weights that are stored in bf16: against plain torch on a float32 copy."""

from functools import partial

import pytest
import torch
from torch import nn

from baselines.stepper import Stepper
from evotext.optimization.factory import check_optimizer

SGD = partial(torch.optim.SGD, lr=1e-4)
ADAMW = partial(torch.optim.AdamW, lr=1e-4, weight_decay=0.0)


def narrow_and_wide() -> tuple[nn.Parameter, nn.Parameter]:
    start = torch.linspace(0.5, 2.0, 12).bfloat16()
    return nn.Parameter(start.clone()), nn.Parameter(start.float())


def stepper(parameter: nn.Parameter, factory: object = SGD, bound: float | None = None) -> Stepper:
    return Stepper(factory, [{"params": [parameter]}], max_grad_norm=bound)  # type: ignore[arg-type]


@pytest.mark.parametrize("factory", [SGD, ADAMW])
def test_steps_below_the_spacing_of_bf16_add_up(factory: object) -> None:
    narrow, wide = narrow_and_wide()
    steps, plain = stepper(narrow, factory), factory([wide])  # type: ignore[operator]
    lost = nn.Parameter(narrow.detach().clone())
    without_masters = factory([lost])  # type: ignore[operator]
    for _ in range(200):
        for parameter in (narrow, wide, lost):
            parameter.sum().backward()
        steps.step()
        plain.step()
        without_masters.step()
        wide.grad = lost.grad = None
    assert torch.equal(narrow, wide.bfloat16()) and float((wide - narrow_and_wide()[1]).detach().abs().min()) > 0.019
    moved = (lost.float() - narrow_and_wide()[1]).detach().abs()
    assert float(moved.max()) < 0.019, "the example must be one in which bf16 alone loses steps"


def test_gradients_add_up_in_float32() -> None:
    narrow, wide = narrow_and_wide()
    steps = stepper(narrow, partial(torch.optim.SGD, lr=1.0))
    for weight in (1.0, *[1e-3] * 100):  # in bf16, 1 + 0.001 is 1
        (narrow * weight).sum().backward()
        assert narrow.grad is None, "it is taken over at once"
    norms = steps.step()
    total = 1 + 100 * float(torch.tensor(1e-3).bfloat16())
    assert norms == pytest.approx([total * 12**0.5], rel=1e-5)
    assert torch.equal(narrow, (wide.detach() - total).bfloat16())


def test_the_norm_of_a_group_is_bounded_over_wide_and_narrow_together() -> None:
    """Each group's gradient is bounded on its own: a critic whose errors are large leaves the policy its step."""
    narrow, wide = narrow_and_wide()
    critic = nn.Parameter(torch.zeros(2))
    before = wide.detach().clone()
    steps = Stepper(
        partial(torch.optim.SGD, lr=1.0), [{"params": [narrow, wide]}, {"params": [critic]}], max_grad_norm=0.5
    )
    ((narrow * 3).sum() + (wide * 4).sum() + (critic * 1e6).sum()).backward()
    assert steps.step() == pytest.approx([5 * 12**0.5, 2**0.5 * 1e6])
    assert torch.allclose(before - wide, torch.full((12,), 4 * 0.5 / (5 * 12**0.5)))
    assert torch.allclose(critic, torch.full((2,), -0.5 / 2**0.5))
    ((wide * 4).sum() + (critic * torch.inf).sum()).backward()
    held = wide.detach().clone()
    assert steps.step() is None and torch.equal(wide, held)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    narrow, _ = narrow_and_wide()
    before, steps = narrow.detach().clone(), stepper(narrow)
    (narrow * torch.inf).sum().backward()
    assert steps.step() is None and torch.equal(narrow, before)
    narrow.sum().backward()
    assert steps.step() == pytest.approx([12**0.5]), "the bad gradient is forgotten"


def test_state_goes_on_where_it_was() -> None:
    def steps_of(made: Stepper, parameter: nn.Parameter, count: int) -> None:
        for _ in range(count):
            (parameter.float() ** 2).sum().backward()
            made.step()

    one, _ = narrow_and_wide()
    unbroken = stepper(one, ADAMW)
    steps_of(unbroken, one, 30)
    state, stored = unbroken.state_dict(), one.detach().clone()
    state = torch.utils._pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, state)
    steps_of(unbroken, one, 30)
    other = nn.Parameter(stored)
    resumed = stepper(other, ADAMW)
    resumed.load_state_dict(state)
    steps_of(resumed, other, 30)
    assert torch.equal(one, other)
    assert all(
        torch.equal(a, b)
        for a, b in zip(unbroken.state_dict()["masters"], resumed.state_dict()["masters"], strict=True)
    )  # type: ignore[call-overload]


def test_wide_weights_have_no_copy() -> None:
    _, wide = narrow_and_wide()
    steps = stepper(wide)
    assert steps.optimizer.param_groups[0]["params"][0] is wide and steps.state_dict()["masters"] == []


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (partial(torch.optim.Adam, lr=-1.0), "Invalid learning rate"),
        (partial(torch.optim.Adam, lr=float("inf")), "optimizer.lr: expected a number that float32 can hold, got inf"),
        (partial(torch.optim.Adam, lr="fast"), "optimizer.lr: expected a number, got 'fast'"),
        (partial(torch.optim.Adam, lr=1e300), "optimizer.lr: expected a number that float32 can hold, got 1e"),
        (partial(torch.optim.SGD, lr=0.1, nesterov=True), "optimizer.nesterov: expected another value .Nesterov"),
        (partial(torch.optim.Adam, unknown=1), "optimizer.unknown: expected another value .*unknown"),
        (torch.optim.LBFGS, "closure"),
    ],
)
def test_optimizers_that_cannot_work_are_refused(factory: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_optimizer(factory)  # type: ignore[arg-type]

"""fp32 masters of weights that are stored narrower."""

from functools import partial

import torch
from torch import nn

from optimizers.masters import MasterWeights

SGD = partial(torch.optim.SGD, lr=1e-3)


def test_small_steps_are_not_lost_in_bfloat16() -> None:
    """A hundred steps of 0.001 move a weight of 1 by 0.1, though bf16's spacing there is 0.008 and each one alone, added
    to the stored weight, would vanish (as they do in the published code of ES at scale).
    """
    weight = nn.Parameter(torch.linspace(1, 2, 9, dtype=torch.bfloat16))
    start = weight.detach().clone()
    assert torch.equal(start + 1e-3, start)
    masters = MasterWeights({"w": weight}, SGD)
    for _ in range(100):
        masters.ascend({"w": torch.ones(9)})
    assert weight.dtype == torch.bfloat16
    assert torch.equal(weight, (start.float() + 0.1).bfloat16())


def test_it_ascends_and_measures() -> None:
    """Uphill; the norm of one step and the distance from the start, which differ after a step back."""
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        weight = nn.Parameter(torch.zeros(4, dtype=dtype))
        masters = MasterWeights({"w": weight}, SGD)
        assert abs(masters.ascend({"w": torch.full((4,), 3.0)}) - 6e-3) < 1e-8
        assert bool((weight > 0).all())
        assert abs(masters.ascend({"w": torch.full((4,), -2.0)}) - 4e-3) < 1e-8
        assert abs(masters.drift - 2e-3) < 1e-8
        assert masters.learning_rate == 1e-3
        assert weight.grad is None


def test_wide_weights_are_their_own_masters() -> None:
    """No second copy to fall out of step with weights that a checkpoint loads."""
    weight = nn.Parameter(torch.zeros(4))
    masters = MasterWeights({"w": weight}, SGD)
    with torch.no_grad():
        weight.fill_(5.0)
    masters.ascend({"w": torch.ones(4)})
    torch.testing.assert_close(weight.detach(), torch.full((4,), 5.001))
    assert masters.state_dict()["masters"] == {}

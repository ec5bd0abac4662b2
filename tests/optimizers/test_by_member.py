"""Functions of a parameter that run member by member give every row what its own member's value gives it alone."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optimizers.perturbed.active import Active, CannotPerturbError
from optimizers.perturbed.by_member import by_member
from optimizers.perturbed.trial import TrialNoise

MEMBERS, ROWS, TOKENS, WIDTH = 2, 6, 5, 4
SHAPES = {
    "vector": (WIDTH,),
    "number": (),
    "matrix": (WIDTH, WIDTH),
    "kernel": (WIDTH, 1, 3),
    "heads": (1, 1, WIDTH, 1),
}
Function = Callable[[Tensor, Tensor], Tensor]

# Each as (shape of the parameter, function of parameter and rows (B, T, N)).
FUNCTIONS: dict[str, tuple[str, Function]] = {
    "scale": ("vector", lambda w, x: x * w),
    "scale from the left": ("vector", lambda w, x: (1 + w) * x),
    "subtract from": ("vector", lambda w, x: 1.0 - (x - w)),
    "scale of a step": ("vector", lambda w, x: x[:, 0] * w),
    "number": ("number", lambda w, x: x * w),
    "own values alone": ("vector", lambda w, x: x * F.softplus(w.float().exp() * w.mean())),
    "decay": ("matrix", lambda w, x: (-torch.exp(w))[None, None] * x[..., None]),
    "flattened": ("vector", lambda w, x: (x.reshape(-1, WIDTH) / (2 + w)).view_as(x)),
    "norm": ("vector", lambda w, x: F.layer_norm(x, (WIDTH,), w + 1, w)),
    "linear": ("matrix", lambda w, x: F.linear(x, w)),
    "linear of flattened tokens": ("matrix", lambda w, x: F.linear(x.reshape(-1, WIDTH), w)),
    "linear in another type": ("matrix", lambda w, x: F.linear(x.to(torch.float32), w.to(torch.float32)).double()),
    "linear in its own way": ("matrix", lambda w, x: F.linear(x, w.tanh(), w[0])),
    "product": ("matrix", lambda w, x: x @ w),
    "product with the other side": ("matrix", lambda w, x: (w @ x.transpose(1, 2)).transpose(1, 2)),
    "sum of products": ("matrix", lambda w, x: torch.einsum("bti,oi->bto", x, w)),
    "convolution": ("kernel", lambda w, x: F.conv1d(x.transpose(1, 2), w, padding=2, groups=WIDTH)),
    "convolution by hand": ("kernel", lambda w, x: (x[:, :3].transpose(1, 2) * w.squeeze(1)).sum(-1)),
    "sinks": ("vector", lambda w, x: torch.cat([x, w[None, None].expand(x.shape[0], x.shape[1], -1)], dim=-1)),
    "heads": ("heads", lambda w, x: x[..., None] * w.exp()),
    "two results": ("vector", lambda w, x: torch.stack((x * w).chunk(2, dim=-1)).sum(0)),
    "look-up": ("matrix", lambda w, x: F.embedding((x[..., 0] > 0).long(), w)),
}
REFUSED: dict[str, tuple[str, Function]] = {
    "in place": ("vector", lambda w, x: x.clone().mul_(w)),
    "rows lost": ("vector", lambda w, x: torch.einsum("btn,n->t", x, w)),
    "a table of its own": ("vector", lambda w, x: x * (torch.ones(TOKENS, WIDTH, dtype=x.dtype) + w)),
    "rows at another place": ("vector", lambda w, x: x.transpose(0, 1) * w),
    "ids that are not the rows'": ("matrix", lambda w, x: F.embedding(torch.arange(3), w)),
}


def rows_and_values(shape: str) -> tuple[nn.Parameter, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(torch.randn(SHAPES[shape], generator=draw, dtype=torch.float64), requires_grad=False)
    value_PS = torch.randn((MEMBERS, *SHAPES[shape]), generator=draw, dtype=torch.float64)
    return parameter, value_PS, torch.randn(ROWS, TOKENS, WIDTH, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_row_computes_with_its_members_value(name: str) -> None:
    shape, function = FUNCTIONS[name]
    parameter, value_PS, x_BTN = rows_and_values(shape)
    outputs = (*SHAPES[shape], 1)[0]
    active = Active(TrialNoise({"w": outputs}, x_BTN.device, {"w": value_PS}), MEMBERS, ROWS)
    together = function(by_member(parameter, "w", active), x_BTN)
    alone = [function(parameter + value_PS[row * MEMBERS // ROWS], x_BTN[row : row + 1]) for row in range(ROWS)]
    assert type(together) is Tensor
    # A type of fewer digits rounds W and E apart.
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5 if "another type" in name else 1e-12)


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_run_member_by_member_is_refused(name: str) -> None:
    shape, function = REFUSED[name]
    parameter, value_PS, x_BTN = rows_and_values(shape)
    active = Active(TrialNoise({"w": WIDTH}, x_BTN.device, {"w": value_PS}), MEMBERS, ROWS)
    with pytest.raises(CannotPerturbError, match="^w: "):
        function(by_member(parameter, "w", active), x_BTN)


def test_it_looks_like_the_parameter() -> None:
    parameter, value_PS, x_BTN = rows_and_values("kernel")
    seen = by_member(parameter, "w", Active(TrialNoise({"w": WIDTH}, x_BTN.device, {"w": value_PS}), MEMBERS, ROWS))
    assert isinstance(seen, Tensor)
    assert (seen.shape, seen.dtype, seen.device, seen.dim()) == (parameter.shape, parameter.dtype, parameter.device, 3)
    assert seen.bfloat16().dtype == torch.bfloat16
    assert seen.to(torch.float32).shape == parameter.shape

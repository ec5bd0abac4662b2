"""Optimizer steps with a bounded gradient, in float32 whatever the weights are stored in."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from baselines.inner_loop import Figures
from evotext.distributed import collectives
from evotext.optimization.factory import OptimizerFactory
from evotext.optimization.learning_rate import LearningRate


@dataclass(kw_only=True)
class Steps:
    """Optimizer steps of one generation."""

    taken: int = 0
    dropped: int = 0
    """For a gradient that is not finite."""

    def take(self, stepper: "Stepper", figures: Figures) -> None:
        """One step by the gradients that have been added up; the norm goes into the figures."""
        norm = stepper.step()
        if norm is None:
            self.dropped += 1
        else:
            self.taken += 1
            figures.mean([("grad_norm", norm)], 1.0)


class Stepper:
    """An optimizer over groups of parameters with the gradient's norm bounded.

    Weights stored in less than float32 get float32 masters, of which they are the rounding: steps below their spacing
    would be lost otherwise, and most of RL's are. Their gradients are added up in float32, too.

    groups: parameters, each group with its options (as torch.optim takes them). max_grad_norm: None bounds nothing.
    schedule: of the learning rate.
    """

    def __init__(
        self,
        factory: OptimizerFactory,
        groups: list[dict[str, Any]],
        *,
        max_grad_norm: float | None,
        schedule: Callable[[int], float] | None = None,
    ) -> None:
        self._narrow: list[tuple[nn.Parameter, nn.Parameter]] = []
        self.optimizer = factory([group | {"params": list(map(self._wide, group["params"]))} for group in groups])
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._max_grad_norm = max_grad_norm
        self.learning_rate = LearningRate(self.optimizer, schedule)

    def step(self) -> float | None:
        """Apply the gradients of all processes and clear them.

        Returns the norm before clipping, or None if it is not finite: then nothing changed.
        """
        collectives.share_gradients(self._parameters)
        bound = torch.inf if self._max_grad_norm is None else self._max_grad_norm
        norm = float(nn.utils.clip_grad_norm_(self._parameters, bound))
        finite = math.isfinite(norm)
        if finite:
            self.optimizer.step()
            self._round()
        self.forget()
        return norm if finite else None

    def forget(self) -> None:
        """Clear the gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        for stored, _ in self._narrow:
            stored.grad = None  # there only if a backward pass was broken off

    def state_dict(self) -> dict[str, object]:
        """The optimizer's state and the masters."""
        return {"optimizer": self.optimizer.state_dict(), "masters": [master.detach() for _, master in self._narrow]}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, object]) -> None:
        """Undo `state_dict`; the stored weights become the masters' rounding."""
        self.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        for (_, master), value in zip(self._narrow, state["masters"], strict=True):  # type: ignore[call-overload]
            master.copy_(value)
        self._round()

    def _wide(self, stored: nn.Parameter) -> nn.Parameter:
        """The parameter itself, or its master, which takes over each gradient as soon as it is there."""
        if stored.dtype in (torch.float32, torch.float64):
            return stored
        master = nn.Parameter(stored.detach().float(), requires_grad=stored.requires_grad)
        self._narrow.append((stored, master))

        def take_over(parameter: Tensor) -> None:
            assert parameter.grad is not None
            gradient = parameter.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

        if stored.requires_grad:
            stored.register_post_accumulate_grad_hook(take_over)
        return master

    @torch.no_grad()
    def _round(self) -> None:
        for stored, master in self._narrow:
            stored.copy_(master)

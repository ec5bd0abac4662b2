"""Optimizer steps with a bounded gradient, in float32 whatever the weights are stored in."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from evotext.distributed import collectives
from evotext.distributed.sharding import is_divided, whole_tensor
from evotext.optimization.factory import OptimizerFactory
from evotext.optimization.master_weights import MasterWeights
from evotext.optimization.schedules import LearningRate, Schedule
from evotext.types import Outcome

from .inner_loop import Figures


@dataclass(kw_only=True)
class Steps:
    """Optimizer steps of one generation."""

    taken: int = 0
    dropped: int = 0
    """For a gradient that is not finite."""
    stopped: bool = False
    """Whether steps that were planned were not taken."""

    @property
    def outcome(self) -> Outcome:
        """The effect of the steps on the weights."""
        if self.taken:
            return Outcome.CHANGED
        return Outcome.NOT_FINITE if self.dropped else Outcome.NO_SIGNAL

    def take(self, stepper: "Stepper", figures: Figures) -> None:
        """Take one step by the accumulated gradients; norms go into the metrics: the policy's, and a critic's."""
        norms = stepper.step()
        if norms is None:
            self.dropped += 1
        else:
            self.taken += 1
            figures.mean([("grad_norm", norms[0])], 1.0)
            if norms[1:]:
                figures.mean([("value_grad_norm", math.hypot(*norms[1:]))], 1.0)


class Stepper:
    """An optimizer over groups of parameters, the norm of each group's gradient bounded on its own.

    Weights stored in less than float32 get float32 masters, of which they are the rounding: steps below their spacing
    would be lost otherwise, and most of RL's are. Their gradients are added up in float32, too.

    groups: parameters, the policy's first, each group with its options (as torch.optim takes them). max_grad_norm: None
    bounds nothing. schedule: of the learning rate.
    """

    def __init__(
        self,
        factory: OptimizerFactory,
        groups: list[dict[str, Any]],
        *,
        max_grad_norm: float | None,
        schedule: Schedule | None = None,
    ) -> None:
        self._stored = {str(i): p for i, p in enumerate(p for group in groups for p in group["params"])}
        self._weights = MasterWeights(self._stored)
        masters = iter(self._weights.masters.values())
        self.optimizer = factory([group | {"params": [next(masters) for _ in group["params"]]} for group in groups])
        self._groups = [list(group["params"]) for group in self.optimizer.param_groups]
        for name, stored in self._stored.items():
            if stored.requires_grad and self._weights.masters[name] is not stored:
                stored.register_post_accumulate_grad_hook(partial(_take_over, self._weights.masters[name]))
        self._max_grad_norm = max_grad_norm
        self.learning_rate = LearningRate(self.optimizer, schedule)

    def step(self) -> list[float] | None:
        """Apply the gradients of all processes and clear them.

        Return each group's norm before clipping, or None if one is not finite: then nothing changed.
        """
        # Those of divided weights have been added up in the backward pass.
        collectives.share_gradients([p for group in self._groups for p in group if not is_divided(p)])
        bound = torch.inf if self._max_grad_norm is None else self._max_grad_norm
        norms = [_clipped(group, bound) for group in self._groups]
        finite = all(map(math.isfinite, norms))
        if finite:
            self.optimizer.step()
            for name in self._stored:
                self._weights.close(name)
        self.forget()
        return norms if finite else None

    def forget(self) -> None:
        """Clear the gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        for stored in self._stored.values():
            stored.grad = None  # there only if a backward pass was broken off

    def state_dict(self) -> dict[str, object]:
        """Return the optimizer's state and the masters."""
        return {"optimizer": self.optimizer.state_dict(), "masters": list(self._weights.state_dict().values())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`; the stored weights become the masters' rounding."""
        self.optimizer.load_state_dict(state["optimizer"])
        self._weights.load_state_dict(dict(zip(self._weights.state_dict(), state["masters"], strict=True)))


def _clipped(group: list[nn.Parameter], bound: float) -> float:
    """Scale the gradients down to the bound if their norm is above it; return that norm."""
    norm = whole_tensor(nn.utils.get_total_norm([p.grad for p in group if p.grad is not None]))
    nn.utils.clip_grads_with_norm_(group, bound, norm)
    return float(norm)


def _take_over(master: nn.Parameter, stored: Tensor) -> None:
    """Add a gradient that has just come to those of the master, in float32."""
    assert stored.grad is not None
    gradient = stored.grad.float()
    master.grad = gradient if master.grad is None else master.grad.add_(gradient)
    stored.grad = None

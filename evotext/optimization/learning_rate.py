"""A torch optimizer's learning rates, each group's times the factor of a schedule."""

import torch

from evotext.optimization.schedules import Schedule


class LearningRate:
    """schedule: None keeps what the optimizer was made with."""

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedule | None = None) -> None:
        self._optimizer, self._schedule = optimizer, schedule
        self._base = [float(group["lr"]) for group in optimizer.param_groups]

    def follow(self, generation: int, spent: float) -> None:
        """Set the rates of this generation. spent: share of the budget before it."""
        if self._schedule is not None:
            factor = self._schedule(generation, spent)
            for group, base in zip(self._optimizer.param_groups, self._base, strict=True):
                group["lr"] = base * factor

    @property
    def now(self) -> float:
        """The present rate of the first group."""
        return float(self._optimizer.param_groups[0]["lr"])

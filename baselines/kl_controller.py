"""The coefficient of a KL penalty: fixed, by a schedule, or steered so that the KL stays near a target.

Steered (Ziegler et al. 2019, "Fine-tuning language models from human preferences", arXiv 1909.08593, section 2.2): after a
generation of n episodes whose KL from the reference, summed over an episode's actions, had the mean KL,

    e = clip(KL / target - 1, -0.2, 0.2)        coefficient <- coefficient (1 + e n / horizon)

The paper writes the constant 0.1 for n / horizon; its code has this form, with a horizon of 10,000 episodes.
"""

from evotext.optimization.schedules import Constant, Schedule

# The paper's bounds on the relative error: one generation changes the coefficient by this part of n / horizon at most.
LARGEST_ERROR = 0.2


class KLController:
    """coefficient: at the start. schedule: its factor, without a target. target: nats an episode. horizon: episodes.

    Raises ValueError for a target with a coefficient of zero, which no factor changes, or with a schedule.
    """

    def __init__(self, coefficient: float, *, schedule: Schedule, target: float | None, horizon: int) -> None:
        if target is not None and coefficient == 0:
            raise ValueError(
                f"kl_target: expected null with kl_coefficient=0, got {target:g}; the controller "
                "multiplies the coefficient: start it above 0, e.g. at 0.05"
            )
        if target is not None and not isinstance(schedule, Constant):
            raise ValueError(
                f"kl_target: expected null with a kl_schedule, got {target:g}; one of the two sets the coefficient"
            )
        self._base, self._schedule = coefficient, schedule
        self.coefficient, self._target, self._horizon = coefficient, target, horizon

    def begin(self, generation: int, spent: float) -> None:
        """Set the coefficient of a generation, unless a target steers it. spent: share of the budget before it."""
        if self._target is None:
            self.coefficient = self._base * self._schedule(generation, spent)

    def follow(self, kl: float, episodes: int) -> None:
        """Update the coefficient from a generation's mean KL in nats an episode."""
        if self._target is None:
            return
        error = min(max(kl / self._target - 1.0, -LARGEST_ERROR), LARGEST_ERROR)
        self.coefficient *= 1.0 + error * episodes / self._horizon

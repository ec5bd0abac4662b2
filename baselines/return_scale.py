"""The mean and spread of returns, followed over generations: the unit of values, of their clip and of advantages.

A critic that predicts (V - mean) / spread learns at the same pace whatever the task pays (value normalisation: van Hasselt
et al. 2016, arXiv 1602.07714; as an option of PPO: Yu et al. 2022, arXiv 2103.01955). With targets T of a generation's
actions and the memory m,

    mean <- m mean + (1 - m) mean T        spread <- max(std T, m spread)

The mean begins as that of the first generation. The spread rises at once and falls slowly: where successes have become rare,
or failures, the critic's error is not blown up to the size of a signal (as for the returns' range of Hafner et al. 2023,
arXiv 2301.04104).
"""

from torch import Tensor

# Targets whose deviation is a smaller part of them than this are equal but for rounding (they are float64).
ROUNDING = 1e-9


class ReturnScale:
    """memory: the part of the past that a generation keeps, from 0 to 1."""

    def __init__(self, memory: float) -> None:
        self.mean: float | None = None
        """None before the first generation."""
        self.spread = 0.0
        """0 until two returns have differed."""
        self._memory = memory

    def follow(self, target_X: Tensor) -> None:
        """Update the scale from a generation's targets, float64, at least one."""
        mean, spread = float(target_X.mean()), float(target_X.std(unbiased=False))
        if spread <= ROUNDING * float(target_X.abs().max()):
            spread = 0.0
        self.mean = mean if self.mean is None else self._memory * self.mean + (1 - self._memory) * mean
        self.spread = max(spread, self._memory * self.spread)

    def to_returns(self, values: Tensor) -> Tensor:
        """Return values in units of the scale as returns: unchanged before the first generation."""
        return (self.mean or 0.0) + self._unit * values

    def to_units(self, returns: Tensor) -> Tensor:
        """Undo `to_returns`."""
        return (returns - (self.mean or 0.0)) / self._unit

    def state_dict(self) -> dict[str, float | None]:
        """Return mean and spread."""
        return {"mean": self.mean, "spread": self.spread}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """Undo `state_dict`."""
        self.mean, self.spread = state["mean"], state["spread"] or 0.0

    @property
    def _unit(self) -> float:
        return self.spread or 1.0

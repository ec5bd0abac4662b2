"""A limit in a unit that is the same for every algorithm."""

from typing import Literal

from evotext.types import Cost
from evotext.validation import PositiveFloat, checked

Unit = Literal["episodes", "generated_tokens", "flops", "seconds", "updates"]


class Budget:
    """How much a run may spend on training; evaluation is not charged.

    A generation is never cut short, so a run can overshoot by at most one generation; what was spent is recorded.
    unit: `seconds` counts rollout, environments and updates; `flops` are a formula's, the same on every machine.
    limit: how much of it.
    """

    @checked
    def __init__(self, *, unit: Unit, limit: PositiveFloat) -> None:
        self.unit, self.limit = unit, limit

    def spent(self, cost: Cost) -> float:
        """How much of the unit this cost is."""
        return float(getattr(cost, self.unit))

    def fraction(self, cost: Cost) -> float:
        """Share of the limit that is spent: 1 or more means exhausted."""
        return self.spent(cost) / self.limit

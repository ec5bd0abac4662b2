"""A limit in a unit that is the same for every algorithm."""

from typing import Literal

from evotext.types import Cost
from evotext.validation import PositiveFloat, checked

# Generations in a row without an update that end a run whose budget is in updates.
MOST_IDLE = 100

Unit = Literal["episodes", "generated_tokens", "flops", "seconds", "updates"]


class Budget:
    """The most that a run may spend on training; evaluation is not charged.

    A generation is never cut short, so a run can overshoot by at most one generation; what was spent is recorded.
    A generation that changes no weights is no update: where nothing gives a signal, a budget in updates is never spent.
    unit: `seconds` counts rollout, environments and updates; `flops` are a formula's, the same on every machine.
    limit: how much of it.
    """

    @checked
    def __init__(self, *, unit: Unit, limit: PositiveFloat) -> None:
        self.unit, self.limit = unit, limit

    def spent(self, cost: Cost) -> float:
        """Return how much of the unit this cost is."""
        return float(getattr(cost, self.unit))

    def fraction(self, cost: Cost) -> float:
        """Share of the limit that is spent: 1 or more means exhausted."""
        return self.spent(cost) / self.limit

    def out_of_reach(self, idle: int) -> str | None:
        """Say why a run can end although something is left; else None. idle: its latest generations without an update.

        Every generation spends some of the other units.
        """
        if self.unit != "updates" or idle < MOST_IDLE:
            return None
        return f"{idle} generations in a row made no update, so that the rest of the budget is out of reach"

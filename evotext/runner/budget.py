"""A limit in a unit that is the same for every algorithm."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from evotext.types import Cost
from evotext.validation import PositiveFloat, checked_record

# This many generations in a row without an update end a run whose budget is in updates.
MOST_IDLE = 100

# The next generation's cost is predicted from this many of the latest.
LATEST = 4
# Amounts that differ by less than this share of the limit are equal.
_ROUNDING = 1e-9

Unit = Literal["episodes", "generated_tokens", "flops", "seconds", "updates"]


class Taken(NamedTuple):
    """The part of a budget that one generation took, in the budget's unit."""

    rows: int
    """Rows of its plan."""
    by_rows: float
    """The amount that grows in proportion to the rows."""
    besides: float
    """The rest."""


@checked_record
class Budget:
    """The most that a run may spend on training; evaluation is not charged.

    The last generation is cut to what is left (`rows_left`), so that a run overshoots by no more than episodes turned out
    longer than those before; what was spent is recorded. A generation that changes no weights is no update: where nothing
    gives a signal, a budget in updates is never spent.
    unit: `seconds` counts rollout, environments and updates; `flops` are a formula's, the same on every machine.
    limit: the amount.
    """

    unit: Unit
    limit: PositiveFloat

    def spent(self, cost: Cost) -> float:
        """Return how much of the unit this cost is."""
        return float(getattr(cost, self.unit))

    def fraction(self, cost: Cost) -> float:
        """Return the share of the limit that is spent: 1 or more means exhausted."""
        return self.spent(cost) / self.limit

    def generations(self, cost: Cost, generation: int) -> float:
        """Return how many generations the whole budget holds if all cost as much as those so far. cost: theirs in all."""
        return generation / self.fraction(cost) if self.spent(cost) else math.inf

    def taken(self, rows: int, rollouts: Cost, update: Cost, *, update_is_fixed: bool) -> Taken:
        """Return what a generation took. update_is_fixed: fewer rows would not have made the update cheaper."""
        whole = self.spent(rollouts + update)
        if self.unit == "updates" or not rows:
            return Taken(rows, 0.0, whole)
        besides = self.spent(update) if update_is_fixed else 0.0
        return Taken(rows, whole - besides, besides)

    def rows_left(self, cost: Cost, latest: Sequence[Taken]) -> float:
        """Return how many rows the next generation can have, by the dearest of the latest; infinity where nothing is known.

        Below 0: what is left holds not even a generation without rows. cost: of the run so far.
        """
        left = self.limit - self.spent(cost) + _ROUNDING * self.limit
        each = max((taken.by_rows / taken.rows for taken in latest if taken.rows), default=0.0)
        if self.unit == "episodes":
            each = max(each, 1.0)
        room = left - max((taken.besides for taken in latest), default=0.0)
        return room / each if each > 0 else math.copysign(math.inf, room)

    def out_of_reach(self, idle: int) -> str | None:
        """Say why a run can end although something is left; else None. idle: its latest generations without an update.

        Every generation spends some of the other units.
        """
        if self.unit != "updates" or idle < MOST_IDLE:
            return None
        return f"{idle} generations in a row made no update, so that the rest of the budget is out of reach"

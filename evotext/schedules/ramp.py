"""What schedules with an end share: a rise from nothing, then a way from 1 to the end."""

from evotext.validation import NonNegativeFloat, NonNegativeInt, PositiveInt, checked


class Ramp:
    """warm_up: generations over which the factor rises evenly to 1. generations: from 0 until it reaches `end`, its last."""

    @checked
    def __init__(self, *, generations: PositiveInt, end: NonNegativeFloat, warm_up: NonNegativeInt) -> None:
        if warm_up >= generations:
            raise ValueError(f"warm_up: expected fewer than generations = {generations}, got {warm_up}")
        self.generations, self.end, self.warm_up = generations, end, warm_up

    def rise(self, generation: int) -> float | None:
        """The factor while it warms up; None afterwards."""
        return (generation + 1) / (self.warm_up + 1) if generation < self.warm_up else None

    def way(self, generation: int) -> float:
        """Share of the way from the warm-up's end to the last generation, in [0, 1]."""
        return min(1.0, (generation - self.warm_up) / (self.generations - self.warm_up))

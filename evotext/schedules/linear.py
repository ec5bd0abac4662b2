"""A straight line."""

from evotext.schedules.ramp import Ramp


class Linear(Ramp):
    """From 1 to `end` in equal steps."""

    def __call__(self, generation: int) -> float:
        """The factor."""
        rise = self.rise(generation)
        return rise if rise is not None else 1.0 + (self.end - 1.0) * self.way(generation)

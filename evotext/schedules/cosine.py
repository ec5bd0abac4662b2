"""Half a cosine: slow at both ends."""

import math

from evotext.schedules.ramp import Ramp


class Cosine(Ramp):
    """From 1 to `end` along half a period (arXiv 1608.03983, without restarts)."""

    def __call__(self, generation: int) -> float:
        """The factor."""
        rise = self.rise(generation)
        if rise is not None:
            return rise
        return self.end + (1.0 - self.end) * 0.5 * (1.0 + math.cos(math.pi * self.way(generation)))

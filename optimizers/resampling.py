"""The task instances that a generation runs on."""

from evotext.keys.instances import train_instances
from evotext.validation import PositiveInt, checked_record


@checked_record
class Resampling:
    """Fresh instances every `every` generations; in between the same ones again.

    Reused instances make the fitness of successive generations comparable, and are memorised when reused too often.
    every: None keeps those of the first generation throughout, as the published code of ES at scale does.
    """

    every: PositiveInt | None

    def instances(self, seed: int, generation: int, count: int) -> tuple[int, ...]:
        """Return environment seeds: a pure function of the run's seed and the generation."""
        return train_instances(seed, 0 if self.every is None else generation // self.every * self.every, count)

"""The task instances that a run sees: environment seeds as pure functions of the run's seed and the generation.

Training seeds are even and held-out seeds odd, so the two never meet even in an environment that ignores the `split`
option of `reset` (those that know it keep the instances themselves apart).
"""

import torch

from evotext.keys.philox import Purpose, stream_id, uniform

_TRAIN, _TEST, _VALIDATION = 0, 1, 2


def train_instances(seed: int, generation: int, count: int) -> tuple[int, ...]:
    """Return `count` even 31-bit environment seeds for one generation of the run with this seed."""
    return _instances(seed, generation, count, _TRAIN)


def held_out_instances(count: int) -> tuple[int, ...]:
    """Return `count` odd 31-bit environment seeds; the same for every run, whatever its algorithm and seed."""
    return _instances(0, 0, count, _TEST)


def validation_instances(count: int) -> tuple[int, ...]:
    """Return `count` even 31-bit environment seeds, the same for every run, for choosing hyperparameters.

    They index training instances, so that the held-out ones stay unseen; drawn apart from those that runs train on.
    """
    return _instances(0, 0, count, _VALIDATION)


def _instances(seed: int, generation: int, count: int, kind: int) -> tuple[int, ...]:
    draws = uniform(seed, stream_id(Purpose.INSTANCES, kind), generation, torch.zeros(1, dtype=torch.int64), count)
    return tuple(2 * int(u * 2**30) + kind % 2 for u in draws[0].tolist())

"""The jobs of a head-to-head: the trials of the tuning phase and the runs of the reporting phase.

A job is one `evotext train` with its words and its folder. The plan is a pure function of the arguments, so that a
head-to-head that was stopped finds its finished jobs again.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import MappingProxyType

# Tuning runs have one seed, which no reported run may have.
TUNING_SEED = 1_000_003

Space = Mapping[str, Sequence[object]]
"""The values that a search tries for each key."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run."""

    algorithm: str
    env: str
    folder: Path
    words: tuple[str, ...]
    """Overrides for `evotext train`, without the folder."""
    setting: tuple[str, ...] = ()
    """The words among them that were searched for."""

    @property
    def title(self) -> str:
        """The job in a few words."""
        return " ".join([self.algorithm, "on", self.env, self.folder.name, *self.setting])


def settings(
    space: Space, algorithm: str, trials: int, shipped: Mapping[str, object] = MappingProxyType({})
) -> list[tuple[str, ...]]:
    """Return at most `trials` different settings: first the shipped one (no words), then random points of the grid.

    The same for every task. Fewer where the grid has no more. shipped: values of the space's keys as they come, a point
    that is not tried a second time.
    """
    keys = sorted(space)
    points = [point for point in product(*(space[k] for k in keys)) if keys]
    own = tuple(shipped.get(key) for key in keys)
    grid = [tuple(f"{k}={v}" for k, v in zip(keys, point, strict=True)) for point in points if point != own]
    random.Random(f"{algorithm} {TUNING_SEED}").shuffle(grid)  # noqa: S311 (no secret)
    return [(), *grid][:trials]


def tuning_jobs(
    algorithms: Sequence[str],
    envs: Sequence[str],
    spaces: Mapping[str, Space],
    trials: int,
    words: Sequence[str],
    out: Path,
    shipped: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
) -> list[Job]:
    """Return equally many trials for every algorithm and task; none if there is nothing to choose from.

    They run on a seed of their own and are judged on validation instances, greedily alone. Algorithms take turns, so
    that a phase that was cut short has tried about as much of each. shipped: of each algorithm, as in `settings`.
    """
    if trials < 2:
        return []
    tried = {name: settings(spaces[name], name, trials, shipped.get(name, {})) for name in algorithms}
    return [
        Job(
            algorithm=algorithm,
            env=env,
            folder=out / "tuning" / env / algorithm / f"trial-{trial}",
            words=(
                *(f"algorithm={algorithm}", f"env={env}", f"seed={TUNING_SEED}"),
                *("phase=tuning", "evaluation.split=validation", "evaluation.samples=0"),
                *(*words, *tried[algorithm][trial]),
            ),
            setting=tried[algorithm][trial],
        )
        for trial in range(trials)
        for env in envs
        for algorithm in algorithms
        if trial < len(tried[algorithm])
    ]


def reported_jobs(
    chosen: Mapping[tuple[str, str], tuple[str, ...]], seeds: Sequence[int], words: Sequence[str], out: Path
) -> list[Job]:
    """Return every seed of every pair (algorithm, task) with its chosen setting; seed by seed."""
    return [
        Job(
            algorithm=algorithm,
            env=env,
            folder=out / "reported" / env / algorithm / f"seed-{seed}",
            words=(f"algorithm={algorithm}", f"env={env}", f"seed={seed}", *words, *setting),
            setting=setting,
        )
        for seed in seeds
        for (algorithm, env), setting in chosen.items()
    ]

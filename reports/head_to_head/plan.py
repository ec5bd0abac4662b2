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

# The seed of the first search's trials; further searches have the next ones. No reported run may have any of them.
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
    draw: int = 0
    """Which of several searches it belongs to."""

    @property
    def title(self) -> str:
        """The job in a few words."""
        search = [f"(search {self.draw + 1})"] if self.draw else []
        return " ".join([self.algorithm, "on", self.env, self.folder.name, *search, *self.setting])


def settings(
    space: Space, algorithm: str, trials: int, shipped: Mapping[str, object] = MappingProxyType({}), *, draw: int = 0
) -> list[tuple[str, ...]]:
    """Return at most `trials` different settings: first the shipped one (no words), then random points of the grid.

    The same for every task. Fewer where the grid has no more. shipped: values of the space's keys as they come, a point
    that is not tried a second time. draw: another one gives other points.
    """
    keys = sorted(space)
    points = [point for point in product(*(space[k] for k in keys)) if keys]
    own = tuple(shipped.get(key) for key in keys)
    grid = [tuple(f"{k}={v}" for k, v in zip(keys, point, strict=True)) for point in points if point != own]
    random.Random(f"{algorithm} {TUNING_SEED + draw}").shuffle(grid)  # noqa: S311 (no secret)
    return [(), *grid][:trials]


def tuning_jobs(
    algorithms: Sequence[str],
    envs: Sequence[str],
    spaces: Mapping[str, Space],
    trials: int,
    words: Sequence[str],
    out: Path,
    shipped: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
    *,
    draw: int = 0,
) -> list[Job]:
    """Return one search: equally many trials for every algorithm and task; none if there is nothing to choose from.

    They run on a seed of their own and are judged on validation instances, greedily alone. Algorithms take turns, so
    that a phase that was cut short has tried about as much of each. shipped: of each algorithm, as in `settings`.
    draw: of several searches, which have other points of the grid and another seed each.
    """
    if trials < 2:
        return []
    tried = {name: settings(spaces[name], name, trials, shipped.get(name, {}), draw=draw) for name in algorithms}
    return [
        Job(
            algorithm=algorithm,
            env=env,
            folder=part(out, "tuning", draw) / env / algorithm / f"trial-{trial}",
            words=(
                *(f"algorithm={algorithm}", f"env={env}", f"seed={TUNING_SEED + draw}"),
                *("phase=tuning", "evaluation.split=validation", "evaluation.samples=0"),
                *(*draw_word(draw), *words, *tried[algorithm][trial]),
            ),
            setting=tried[algorithm][trial],
            draw=draw,
        )
        for trial in range(trials)
        for env in envs
        for algorithm in algorithms
        if trial < len(tried[algorithm])
    ]


def reported_jobs(
    chosen: Mapping[tuple[str, str], tuple[str, ...]],
    seeds: Sequence[int],
    words: Sequence[str],
    out: Path,
    *,
    draw: int = 0,
    known: Sequence[Job] = (),
) -> list[Job]:
    """Return every seed of every pair (algorithm, task) with its chosen setting; seed by seed.

    known: the jobs of earlier searches; a setting that they have is left out, since its runs would be the same.
    """
    had = {(job.algorithm, job.env, job.setting) for job in known}
    chosen = {pair: setting for pair, setting in chosen.items() if (*pair, setting) not in had}
    return [
        Job(
            algorithm=algorithm,
            env=env,
            folder=part(out, "reported", draw) / env / algorithm / f"seed-{seed}",
            words=(f"algorithm={algorithm}", f"env={env}", f"seed={seed}", *draw_word(draw), *words, *setting),
            setting=setting,
            draw=draw,
        )
        for seed in seeds
        for (algorithm, env), setting in chosen.items()
    ]


def part(out: Path, phase: str, draw: int) -> Path:
    """Return the folder of one phase of one search: the first's is `tuning`, the second's `tuning-2`."""
    return out / (f"{phase}-{draw + 1}" if draw else phase)


def draw_word(draw: int) -> tuple[str, ...]:
    """Return the word that tells a run's search; none for the first, so that runs of a single search stay as they are."""
    return (f"draw={draw}",) if draw else ()

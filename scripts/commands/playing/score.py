"""The score of some episodes, with intervals that hold 95%.

Share of successes: Wilson 1927, which holds for few episodes and where all or none succeed. Mean return: bootstrap.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from evotext.reports import statistics

from .episode import Played

Interval = tuple[float, float]


def share_interval(successes: int, count: int) -> Interval:
    """Return Wilson's interval of the probability of a success."""
    z = NormalDist().inv_cdf((1 + statistics.CONFIDENCE) / 2)
    share = successes / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(returns: Sequence[float]) -> Interval | None:
    """Return the bootstrap interval of the mean, the same for the same returns; None for too few of them."""
    if len(returns) < statistics.FEWEST_RUNS:
        return None
    drawn = np.asarray(returns)[statistics.resamples(len(returns), seed=0)].mean(1)
    low, high = statistics.interval_of(drawn)
    return float(low), float(high)


def score(played: Sequence[Played]) -> list[str]:
    """Return success, where the task knows one, and mean return in words."""
    if not played:
        return ["no episode was played to its end"]
    lines = []
    solved = [episode.success for episode in played if episode.success is not None]
    if solved:
        low, high = share_interval(sum(solved), len(solved))
        lines.append(f"success {sum(solved) / len(solved):.3f} [{low:.3f}, {high:.3f}], {sum(solved)} of {len(solved)}")
    returns = [episode.episode_return for episode in played]
    interval = mean_interval(returns)
    within = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    lines.append(
        f"mean return {sum(returns) / len(returns):.3f}{within}, {len(returns)} episode{'s' * (len(returns) > 1)}"
    )
    return lines

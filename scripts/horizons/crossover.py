"""Does one family overtake another as episodes grow longer? Differences at each length, their slope, and a verdict.

A crossover has two sides: the one is ahead at some length and the other at a longer one. Each is a Welch test of the runs of
two contestants at one length; the p values are adjusted for all pairs and lengths (Holm). The slope is that of the difference
over log2 of the length, by a Welch contrast of the cells' means. A permutation test, which assumes no normal scores, would take
seven seeds and more for as many comparisons.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import stats

from evotext.reports import statistics

Cells = Mapping[str, Mapping[int, Sequence[float]]]
"""Final scores by contestant, length and seed."""
SIGNIFICANCE = 0.05


class Gap(NamedTuple):
    """One contestant's lead over another at one length."""

    first: str
    second: str
    length: int
    difference: float
    low: float
    high: float
    """Welch's 95% interval."""
    p_value: float
    """Adjusted for all pairs and lengths."""


class Slope(NamedTuple):
    """The change of a lead as the length doubles."""

    first: str
    second: str
    slope: float
    low: float
    high: float
    p_value: float
    """Adjusted for all pairs."""


def gaps(cells: Cells, firsts: Sequence[str], seconds: Sequence[str]) -> list[Gap]:
    """Return the lead of every first over every second contestant at every length. Raise ValueError for a single seed."""
    places = [(a, b, length) for a, b in product(firsts, seconds) for length in sorted(cells[a])]
    found = [_interval(cells, a, b, {n: 1.0}) for a, b, n in places]
    adjusted = statistics.holm([p for *_, p in found])
    return [Gap(*place, *one[:3], p) for place, one, p in zip(places, found, adjusted, strict=True)]


def slopes(cells: Cells, firsts: Sequence[str], seconds: Sequence[str]) -> list[Slope]:
    """Return the slope of every lead over log2 of the length."""
    pairs = list(product(firsts, seconds))
    found = []
    for a, b in pairs:
        x = {n: math.log2(n) for n in cells[a]}
        centre = float(np.mean(list(x.values())))
        spread = sum((value - centre) ** 2 for value in x.values())
        found.append(_interval(cells, a, b, {n: (value - centre) / spread for n, value in x.items()}))
    adjusted = statistics.holm([p for *_, p in found])
    return [Slope(a, b, *one[:3], p) for (a, b), one, p in zip(pairs, found, adjusted, strict=True)]


def _interval(cells: Cells, a: str, b: str, weights: Mapping[int, float]) -> tuple[float, float, float, float]:
    """Return a weighted sum of differences of means with its 95% interval and p value (Welch and Satterthwaite)."""
    value, parts = 0.0, []
    for n, weight in weights.items():
        for sign, runs in ((1.0, cells[a][n]), (-1.0, cells[b][n])):
            if len(runs) < 2:
                raise ValueError(
                    f"expected at least two seeds of each contestant at each length, got {len(runs)} at {n}"
                )
            value += sign * weight * float(np.mean(runs))
            parts.append((weight**2 * float(np.var(runs, ddof=1)) / len(runs), len(runs) - 1))
    variance = sum(part for part, _ in parts)
    if variance == 0.0:  # nothing to judge the difference by
        return value, value, value, 1.0
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    error = math.sqrt(variance)
    reach = float(stats.t.ppf(1 - SIGNIFICANCE / 2, freedom)) * error
    return value, value - reach, value + reach, float(2 * stats.t.sf(abs(value) / error, freedom))


def verdict(found: Sequence[Gap]) -> str:
    """Return `confirmed`, `refuted` or `undecided`: that the first contestant of these leads overtakes the second.

    Refuted: the second is ahead at the greatest length. One pair's leads, in order of length.
    """
    ahead = [gap.difference > 0 and gap.p_value < SIGNIFICANCE for gap in found]
    behind = [gap.difference < 0 and gap.p_value < SIGNIFICANCE for gap in found]
    if any(ahead[i] and any(behind[:i]) for i in range(len(found))):
        return "confirmed"
    return "refuted" if behind[-1] else "undecided"

"""Several searches of hyperparameters: what the tuning's own luck is worth.

A head-to-head may draw its search more than once; every search chooses a setting, which runs over all seeds. Runs of one
setting are no sample of what another search would have found, so that they are not thrown together:

* A figure is taken over the runs of all searches; its interval reaches from the lowest to the highest end of the intervals
  that each search's runs have by themselves.
* A lead is claimed if it holds whichever search of each side is taken: the p value is the greatest over all such pairs
  (an intersection-union test, Berger 1982, whose level needs no correction for them).

So a lead is one of the settings that were found. That two searches agree does not rule out luck of the search itself: it would
put both of one side above both of the other in one of three cases.

With one search all of this is what `reports.statistics` has. Scores come as one list a search and task.
"""

from collections.abc import Mapping, Sequence
from itertools import product

from evotext.run_folder.record import RunRecord

from .statistics import Estimate, estimate, interquartile_mean, permutation_p_value, probability_of_improvement

Searched = Mapping[str, Sequence[Sequence[float]]]
"""Scores by task, search and run. A task with fewer searches has fewer settings: later ones have chosen a known one."""


def by_search(runs: Sequence[RunRecord], scores: Sequence[float]) -> list[list[float]]:
    """Return scores, one a run, by search in their order."""
    pairs = list(zip(runs, scores, strict=True))
    return [[score for run, score in pairs if run.draw == draw] for draw in sorted({run.draw for run in runs})]


def estimate_of(scores: Searched, *, seed: int) -> Estimate:
    """Return the figure over all searches, with the interval that holds those of each."""
    each = [estimate(part, seed=seed) for part in _parts(scores)]
    if len(each) == 1:
        return each[0]
    pooled = {task: [score for part in parts for score in part] for task, parts in scores.items()}
    return Estimate(value=interquartile_mean(pooled), interval=_hull(each), runs=sum(map(len, pooled.values())))


def improvement_of(x: Searched, y: Searched, *, seed: int) -> Estimate:
    """Return the probability of improvement over all pairs of searches, with the interval that holds those of each pair."""
    each = [probability_of_improvement(a, b, seed=seed) for a, b in product(_parts(x), _parts(y))]
    if len(each) == 1:
        return each[0]
    runs = sum(len(part) for scores in (x, y) for parts in scores.values() for part in parts)
    return Estimate(value=sum(found.value for found in each) / len(each), interval=_hull(each), runs=runs)


def p_value_of(x: Searched, y: Searched, *, seed: int) -> float:
    """Return the greatest p value over all pairs of searches; 1 where the pairs disagree about who leads."""
    pairs = list(product(_parts(x), _parts(y)))
    ahead = {probability_of_improvement(a, b, seed=seed).value > 0.5 for a, b in pairs}
    if len(ahead) > 1:
        return 1.0
    return max(permutation_p_value(a, b, seed=seed) for a, b in pairs)


def _parts(scores: Searched) -> list[dict[str, Sequence[float]]]:
    """Return the scores of each search over all tasks."""
    most = max(map(len, scores.values()))
    return [{task: parts[min(draw, len(parts) - 1)] for task, parts in scores.items()} for draw in range(most)]


def _hull(estimates: Sequence[Estimate]) -> tuple[float, float] | None:
    known = [found.interval for found in estimates if found.interval is not None]
    if len(known) < len(estimates):
        return None
    return min(low for low, _ in known), max(high for _, high in known)

"""Pages of pure chance state a lead in at most one of twenty cases, and pages of a real lead do state it."""

import math
import re
from collections.abc import Iterator

import numpy as np
import pytest

from reports.comparison import Comparison, compare
from reports.statistics import holm, permutation_p_value
from reports.tasks import SIGNIFICANCE
from reports.verdicts import answer, verdict
from tests.reports.run_records import run_record

PAGES = 40


def page(rng: np.random.Generator, *, tasks: int, algorithms: int, seeds: int, lead: float = 0.0) -> Comparison:
    """Shares of 256 episodes whose rate varies from seed to seed; that of the first algorithm is greater by `lead`."""
    runs = []
    for task in range(tasks):
        for algorithm in range(algorithms):
            for seed in range(seeds):
                rate = np.clip(rng.normal(0.5 + (lead if algorithm == 0 else 0.0), 0.08), 0.0, 1.0)
                score = float(rng.binomial(256, rate)) / 256
                runs.append(run_record(f"algorithm{algorithm}", score, env=f"task{task}", seed=seed))
    return compare(runs, metric="success", seed=0)


def statements(comparison: Comparison) -> Iterator[str]:
    """Everything that the page says in sentences, and how each pair is read."""
    yield answer(comparison)[0]
    yield from (verdict(task) for task in comparison.tasks)
    places = [*comparison.tasks, *([comparison.overall] if comparison.overall else [])]
    yield from (f"{duel.first} is clearly ahead" for place in places for duel in place.duels if duel.clear)


def states_a_lead(comparison: Comparison) -> bool:
    return any(re.search(r"(?<!no algorithm) is clearly ahead", text) for text in statements(comparison))


@pytest.mark.slow
@pytest.mark.parametrize(("tasks", "algorithms", "seeds"), [(3, 3, 5), (2, 4, 7)])
def test_a_page_of_chance_rarely_states_a_lead(tasks: int, algorithms: int, seeds: int) -> None:
    """The threshold is two standard errors above the rate that is allowed."""
    rng = np.random.default_rng([tasks, algorithms, seeds])
    wrong = sum(states_a_lead(page(rng, tasks=tasks, algorithms=algorithms, seeds=seeds)) for _ in range(PAGES))
    assert wrong / PAGES <= SIGNIFICANCE + 2 * math.sqrt(SIGNIFICANCE * (1 - SIGNIFICANCE) / PAGES)


@pytest.mark.slow
def test_a_real_lead_is_stated() -> None:
    """A difference of two and a half standard deviations, with seven seeds, on each of three tasks and over all of them."""
    rng = np.random.default_rng(0)
    pages = [page(rng, tasks=3, algorithms=3, seeds=7, lead=0.25) for _ in range(20)]
    led = [
        sum(duel.clear for duel in task.duels if duel.first == "algorithm0")
        for comparison in pages
        for task in comparison.tasks
    ]
    assert np.mean(led) >= 0.75 * 2, "of two rivals on a task"
    overall = [comparison.overall for comparison in pages]
    assert all(found and all(duel.clear for duel in found.duels if duel.first == "algorithm0") for found in overall)
    wrong = [
        duel
        for comparison in pages
        for task in comparison.tasks
        for duel in task.duels
        if duel.clear and "algorithm0" not in (duel.first, duel.second)
    ]
    assert len(wrong) <= 2


def test_every_pair_of_the_page_counts_in_the_adjustment() -> None:
    """The smallest p value of the page is multiplied by the number of all pairs, those over all tasks among them."""
    comparison = page(np.random.default_rng(1), tasks=2, algorithms=3, seeds=4)
    assert comparison.overall is not None
    raw, adjusted = [], []
    for task in comparison.tasks:
        scores = {c.name: {"": [run.after["success"] for run in c.counted]} for c in task.contestants}
        raw += [permutation_p_value(scores[duel.first], scores[duel.second], seed=0) for duel in task.duels]
        adjusted += [duel.p_value for duel in task.duels]
    pooled: dict[str, dict[str, list[float]]] = {}
    for task in comparison.tasks:
        for c in task.contestants:
            pooled.setdefault(c.name, {})[task.name] = [run.after["success"] for run in c.counted]
    raw += [permutation_p_value(pooled[d.first], pooled[d.second], seed=0) for d in comparison.overall.duels]
    adjusted += [duel.p_value for duel in comparison.overall.duels]
    assert len(raw) == 9 and adjusted == pytest.approx(holm(raw))

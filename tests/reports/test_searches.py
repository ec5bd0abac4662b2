"""Several searches: figures over all of them, and leads that hold for each."""

import numpy as np
import pytest

from evotext.run_folder.record import RunRecord
from reports.comparison import Comparison, compare
from reports.searches import estimate_of, improvement_of, p_value_of
from reports.statistics import estimate, permutation_p_value, probability_of_improvement
from reports.tasks import SIGNIFICANCE
from tests.reports.run_records import run_record

LOW, A_LITTLE_MORE, MIDDLE, HIGH = ([base + 0.01 * i for i in range(5)] for base in (0.2, 0.205, 0.5, 0.8))


def runs(scores: dict[str, list[list[float]]]) -> list[RunRecord]:
    """Scores by algorithm, search and seed, as runs with the setting that their search has chosen."""
    return [
        run_record(algorithm, score, seed=seed, draw=draw, overrides=(f"algorithm={algorithm}", f"algorithm.lr={draw}"))
        for algorithm, searches in scores.items()
        for draw, found in enumerate(searches)
        for seed, score in enumerate(found)
    ]


def page(scores: dict[str, list[list[float]]]) -> Comparison:
    return compare(runs(scores), metric="success", seed=0)


def test_one_search_is_what_the_statistics_have() -> None:
    x, y = {"a": MIDDLE, "b": HIGH}, {"a": LOW, "b": MIDDLE}
    searched_x, searched_y = ({task: [part] for task, part in scores.items()} for scores in (x, y))
    assert estimate_of(searched_x, seed=3) == estimate(x, seed=3)
    assert improvement_of(searched_x, searched_y, seed=3) == probability_of_improvement(x, y, seed=3)
    assert p_value_of(searched_x, searched_y, seed=3) == permutation_p_value(x, y, seed=3)


def test_the_interval_holds_those_of_each_search_and_the_figure_is_over_all() -> None:
    found = estimate_of({"": [LOW, HIGH]}, seed=0)
    first, second = (estimate({"": part}, seed=0).interval for part in (LOW, HIGH))
    assert first and second and found.interval == (first[0], second[1])
    assert found.value == pytest.approx(0.52) and found.runs == 10


def test_searches_that_chose_other_settings_are_one_contestant() -> None:
    (task,) = page({"eggroll": [LOW, MIDDLE], "grpo": [HIGH, HIGH]}).tasks
    assert [(c.name, len(c.counted), c.seeds) for c in task.contestants] == [("eggroll", 10, 5), ("grpo", 10, 5)]
    assert [search.setting for search in task.contestants[0].searches] == ["lr=0", "lr=1"]
    assert not task.unfair and not any("more than one" in note for note in task.notes)


@pytest.mark.parametrize(
    ("searches", "clear"),
    [
        ([LOW, LOW], True),
        ([LOW, MIDDLE], True),  # behind by either search
        ([LOW, HIGH], False),  # as good by the second
    ],
)
def test_a_lead_holds_whichever_search_is_taken(searches: list[list[float]], clear: bool) -> None:
    comparison = page({"eggroll": searches, "grpo": [HIGH, [score + 0.001 for score in HIGH]]})
    (duel,) = comparison.tasks[0].duels
    assert (duel.first, duel.clear) == ("grpo", clear)
    (sheet,) = (found for found in comparison.sheets["sort"] if found.title == "What the searches have chosen")
    assert [row[:3] for row in sheet.rows][:2] == [("eggroll", "1", "lr=0"), ("eggroll", "2", "lr=1")]


def test_searches_that_disagree_about_the_leader_support_none() -> None:
    assert p_value_of({"": [HIGH, LOW]}, {"": [MIDDLE, MIDDLE]}, seed=0) == 1.0


def test_a_task_whose_later_search_chose_a_known_setting_has_its_runs_in_both() -> None:
    """Over two tasks, the second search is that of the first task and the only one of the second."""
    x, y = {"a": [HIGH, A_LITTLE_MORE], "b": [HIGH]}, {"a": [LOW], "b": [LOW]}
    worst = permutation_p_value({"a": A_LITTLE_MORE, "b": HIGH}, {"a": LOW, "b": LOW}, seed=0)
    best = permutation_p_value({"a": HIGH, "b": HIGH}, {"a": LOW, "b": LOW}, seed=0)
    assert p_value_of(x, y, seed=0) == worst > best, "the lead has to hold whichever search is taken"


@pytest.mark.slow
def test_pages_of_equal_settings_state_a_lead_in_at_most_one_of_twenty() -> None:
    """Two searches a side whose settings are equally good: the greatest of four p values is more careful than each."""
    rng = np.random.default_rng(5)
    pages = 30
    wrong = 0
    for _ in range(pages):
        scores = {f"a{i}": rng.normal(0.5, 0.08, (2, 6)).tolist() for i in range(3)}
        wrong += any(duel.clear for duel in page(scores).tasks[0].duels)
    assert wrong / pages <= SIGNIFICANCE

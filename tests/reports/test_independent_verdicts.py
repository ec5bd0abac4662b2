"""The report's verdicts, and those of the published page, are those of an independent script."""

import re
from pathlib import Path

import numpy as np
import pytest

from evotext.run_folder.record import RunRecord
from reports.comparison import compare
from reports.tables import results_csv
from tests.reports.independent_verdicts import OVERALL, Pair, read, verdicts
from tests.reports.run_records import run_record

DOCS = Path(__file__).resolve().parents[2] / "docs" / "results"
BY_CHANCE = 0.02


def study(searches: int) -> list[RunRecord]:
    """Three algorithms on two tasks: one ahead on both, two alike; scores with ties."""
    rng = np.random.default_rng(searches)
    return [
        run_record(
            algorithm,
            float(rng.binomial(64, np.clip(rng.normal(rate, 0.06), 0, 1))) / 64,
            env=env,
            seed=seed,
            draw=draw,
        )
        for env in ("sort", "recall")
        for algorithm, rate in (("eggroll", 0.35), ("grpo", 0.8), ("ppo", 0.38))
        for draw in range(searches)
        for seed in range(7)
    ]


@pytest.mark.parametrize("searches", [1, 2])
def test_the_report_says_what_an_independent_script_finds(searches: int, tmp_path: Path) -> None:
    comparison = compare(study(searches), metric="success", seed=0)
    (tmp_path / "results.csv").write_text(results_csv(comparison))
    figures, pairs = verdicts(read(tmp_path / "results.csv"))
    assert comparison.overall is not None
    places = {task.name: task.duels for task in comparison.tasks} | {OVERALL: comparison.overall.duels}
    stated = {Pair(place, duel.first, duel.second): duel for place, duels in places.items() for duel in duels}
    assert stated.keys() == pairs.keys() and len(pairs) == 9
    for pair, duel in stated.items():
        p_value, clear = pairs[pair]
        assert duel.p_value == pytest.approx(p_value, abs=BY_CHANCE), pair
        assert duel.clear == clear, pair
    assert any(duel.clear for duel in stated.values()) and not all(duel.clear for duel in stated.values())
    for task in comparison.tasks:
        for c in task.contestants:
            assert c.after and c.after.interval
            expected = figures[task.name, c.name]
            assert c.after.value == pytest.approx(expected[0], abs=1e-9)
            assert (c.after.value, *c.after.interval) == pytest.approx(expected, abs=BY_CHANCE)


@pytest.mark.slow
def test_the_published_page_says_what_its_data_say() -> None:
    """Every figure of the head-to-head's table, its bold ones, and its pairs over all tasks."""
    figures, pairs = verdicts(read(DOCS / "head-to-head.csv"))
    page = (DOCS / "head-to-head.md").read_text(encoding="utf-8")
    heads = next(line for line in page.splitlines() if line.startswith("| Task |"))
    names = re.findall(r"`(\w+)`", heads)
    cell = re.compile(r"(\*\*)?(\d\.\d\d)(?:\*\*)? \[(\d\.\d\d), (\d\.\d\d)\]")
    told = 0
    for line in page.splitlines():
        task = re.match(r"\| `(\w+)` \| \d\.\d \|", line)
        place = OVERALL if line.startswith("| all eight") else task.group(1) if task else None
        if place is None:
            continue
        for name, (bold, *shown) in zip(names, cell.findall(line), strict=True):
            assert [float(value) for value in shown] == pytest.approx(figures[place, name], abs=BY_CHANCE), (
                place,
                name,
            )
            ahead = [clear for pair, (_, clear) in pairs.items() if pair.task == place and pair.first == name]
            assert bool(bold) == (len(ahead) == len(names) - 1 and all(ahead)), (place, name)
            told += 1
    assert told == 36 and len(pairs) == 54
    row = re.compile(r"\| `(\w+)` over `(\w+)` \| \d\.\d\d \[.*?\] \| (\d\.\d+) \| (clear|no clear difference) \|")
    stated = row.findall(page)
    assert len(stated) == 6
    for first, second, p_value, reading in stated:
        found, clear = pairs[Pair(OVERALL, first, second)]
        assert float(p_value) == pytest.approx(found, abs=BY_CHANCE) and (reading == "clear") == clear

"""docs/metrics.md explains every metric that a run logs, and no other."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from evotext.types import FAULTS
from tests.runner.small_runs import ALGORITHMS, ended, run_to_the_end, small_run, together

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
KIND = "kind"  # of a line; no figure


@cache
def explained() -> frozenset[str]:
    """Every name of the page's tables of figures; `eval/pass@k` stands for all k, `reward/PART` and `success/NAME` for all."""
    tables = PAGE.read_text(encoding="utf-8").split("## `summary.json`")[0]
    return frozenset(
        name
        for line in tables.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    )


def logged(folder: Path) -> set[str]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = {name for line in lines for name in line} - {KIND}
    names = {re.sub(r"(?<=eval/pass@)\d+", "k", name) for name in names}
    names = {re.sub(r"(?<=reward/).+", "PART", name) for name in names}
    return {re.sub(r"(?<=success/)\w+|(?<=return/)\w+|(?<=share/)\w+", "NAME", name) for name in names}


# Options that bring further figures.
FURTHER: dict[str, dict[str, Any]] = {
    "dapo": {"refill": 3},
    "eggroll": {"racing": {"_target_": "evotext.optimizers.racing.Racing", "pairs": 1, "candidates": 2}},
    "gspo": {"sampler_cap": 2.0},
    "ppo": {"kl_target": 0.1, "target_kl": 1.0},
    "scored_es": {"kl_target": 0.01, "steps": 2},
}


@pytest.fixture(scope="module")
def names_by_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Run every algorithm briefly, as shipped, with further options and in two processes."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for algorithm in ALGORITHMS:
        small_run(folder / algorithm, algorithm, generations=2, settings=FURTHER.get(algorithm, {})).train()
        found[algorithm] = logged(folder / algorithm)
    small_run(folder / "faulty", generations=1.5, fault="some").train()
    found["faulty"] = logged(folder / "faulty")
    small_run(folder / "parts", generations=1, task="InParts").train()
    found["parts"] = logged(folder / "parts")
    small_run(folder / "mixture", generations=1, mixture=True).train()
    found["mixture"] = logged(folder / "mixture")
    small_run(folder / "levels", generations=1, levels=True).train()
    found["levels"] = logged(folder / "levels")
    options = {"generations": 1, "rows": 4}
    assert ended(*together(2, run_to_the_end, folder / "two", "eggroll", False, options)) == [0, 0]
    found["two processes"] = logged(folder / "two")
    return found


def test_every_figure_is_explained(names_by_run: dict[str, set[str]]) -> None:
    missing = {name: run for run, names in names_by_run.items() for name in names - explained()}
    assert missing == {}, f"docs/metrics.md wants a row for each of {missing}"
    kinds = {f"faults/{kind.label}" for kind in FAULTS}
    assert kinds <= explained()


def test_no_figure_is_explained_that_none_logs(names_by_run: dict[str, set[str]]) -> None:
    kinds = {f"faults/{kind.label}" for kind in FAULTS}
    assert sorted(explained() - set().union(*names_by_run.values()) - kinds) == []


def test_a_figure_without_a_row_would_be_found() -> None:
    assert "no/such_figure" not in explained() and {"eval/success", "reward_std", "half_cosine"} <= explained()

"""Reading whole, damaged, older and missing run folders."""

import json
import math
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evotext.run_folder.find import find_runs
from evotext.run_folder.reader import read_run
from evotext.run_folder.text import clean
from reports.comparison import compare
from reports.html_report import html_report
from reports.markdown import markdown
from reports.tables import results_csv
from tests.reports.run_folders import write_run


def test_a_whole_run(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", algorithm="grpo", env="recall", seed=7, final=0.75, samples=True))
    assert (run.algorithm, run.env, run.model, run.seed, run.status) == ("grpo", "recall", "tiny", 7, "completed")
    assert run.before["success"] == 0.2 and run.after["success"] == 0.75 and run.decoding == "greedy"
    assert run.budget_unit == "episodes" and run.budget_limit == 40_960 == run.budget_spent
    assert run.overrides == ("algorithm=grpo", "env=recall", "seed=7")
    assert run.settings_of("algorithm")["rank"] == "1"
    assert len(run.points) == 17 and run.points[0].cost["episodes"] == 0 and run.points[-1].score["success"] == 0.75
    assert run.points[-1].cost["flops"] == 40_960 * 7 * 8e6
    assert run.samples[-1].texts[0].splitlines()[1] == "llm> 123"
    assert run.problems == ()


def test_a_killed_run_is_unfinished_but_named_by_its_configuration(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", algorithm="ppo", seed=3)
    (folder / "summary.json").unlink()
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(text[: len(text) // 2])
    run = read_run(folder)
    assert (run.algorithm, run.env, run.seed, run.status) == ("ppo", "sort", 3, "unfinished")
    assert run.budget_unit == "episodes" and 1 < len(run.points) < 17
    assert "summary.json is missing" in run.problems and any("1 unreadable line" in p for p in run.problems)


def test_how_far_a_run_is_in_updates(tmp_path: Path) -> None:
    """Twelve generations with three updates are a quarter of a budget of twelve."""
    folder = write_run(tmp_path / "run")
    (folder / "summary.json").unlink()
    config = folder / ".hydra" / "config.yaml"
    values = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump(values | {"budget": {"unit": "updates", "limit": 12}}))
    (folder / "metrics.jsonl").write_text('{"kind": "train", "generation": 12, "updates": 3}\n')
    run = read_run(folder)
    assert (run.budget_unit, run.budget_limit, run.progress) == ("updates", 12.0, 0.25)


def test_a_job_that_died_at_once_is_found(tmp_path: Path) -> None:
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / ".hydra" / "overrides.yaml").write_text("- algorithm=grpo\n")
    run = read_run(find_runs([tmp_path])[0])
    assert run.status == "unfinished" and run.overrides == ("algorithm=grpo",)


def test_a_job_that_failed_before_it_ran_says_why(tmp_path: Path) -> None:
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / "error.txt").write_text("Traceback (most recent call last):\n  ...\nValueError: no such model\n")
    run = read_run(find_runs([tmp_path])[0])
    assert (run.status, run.reason) == ("failed", "ValueError: no such model")
    assert "ValueError: no such model" in markdown(compare([run], metric="success", seed=0), "curves.svg")
    whole = write_run(tmp_path / "1")  # what an earlier attempt left does not count
    (whole / "error.txt").write_text("ValueError: no such model\n")
    assert read_run(whole).status == "completed"


def test_runs_are_found_once_in_order_and_not_inside_runs(tmp_path: Path) -> None:
    for name in ("2", "10", "11", "sweep/0"):
        write_run(tmp_path / name)
    write_run(tmp_path / "2" / "checkpoints" / "old")
    write_run(tmp_path / ".trash" / "0")
    found = find_runs([tmp_path / "10", tmp_path])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["10", "sweep/0", "2", "11"]


def test_wrong_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a folder"):
        find_runs([tmp_path / "none"])
    with pytest.raises(ValueError, match="no runs in"):
        find_runs([tmp_path])


def test_nonsense_values_are_named_and_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    summary["eval"] |= {"success_after": 1.5, "return_after": "high", "success_before": None}
    summary["cost"] |= {"episodes": -1, "flops": 10**400, "seconds": True}
    summary["status"] = "finished"
    (folder / "summary.json").write_text(json.dumps(summary))
    run = read_run(folder)
    assert run.status == "unfinished"
    assert all(math.isnan(run.after[key]) for key in ("success", "return")) and math.isnan(run.before["success"])
    assert all(math.isnan(run.cost[key]) for key in ("episodes", "flops", "seconds"))
    text = "; ".join(run.problems)
    for word in (
        "success_after is 1.5",
        "return_after is high",
        "episodes is -1",
        "flops",
        "seconds",
        "status is finished",
    ):
        assert word in text
    assert "success_before" not in text  # null is how a run says that it has no figure


def test_a_resumed_run_counts_the_later_line_and_costs_never_fall(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    again = last | {"eval/success": 0.125}
    backwards = last | {"generation": last["generation"] + 1, "episodes": 1}
    (folder / "metrics.jsonl").write_text("\n".join([*lines, json.dumps(again), json.dumps(backwards)]) + "\n")
    run = read_run(folder)
    assert len(run.points) == 17 and run.points[-1].score["success"] == 0.125
    assert any("costs fall" in problem for problem in run.problems)


def test_names_cannot_command_a_terminal() -> None:
    assert clean("a\x1b[31mb\nc") == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}c"
    assert len(clean("x" * 10_000)) == 200
    assert clean(None) == clean([]) == clean(True) == clean(10**5000) == ""
    assert clean("\ud800") == "\N{REPLACEMENT CHARACTER}"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
LINES = st.fixed_dictionaries(
    {"kind": st.sampled_from(["eval", "eval", "train"])},
    optional={
        key: st.integers(0, 5) | st.floats(0, 1) | VALUES
        for key in ("generation", "episodes", "generated_tokens", "seconds", "flops", "eval/success", "eval/return")
    },
).map(json.dumps)
SUMMARIES = st.fixed_dictionaries(
    {"status": st.just("completed"), "algorithm": st.text(max_size=5), "env": st.text(max_size=5)},
    optional=dict.fromkeys(("model", "seed", "reason", "budget", "eval", "cost", "versions", "device"), VALUES),
).map(json.dumps)


@given(
    lines=st.lists(LINES | st.text(max_size=20) | VALUES.map(json.dumps), max_size=6),
    summary=SUMMARIES | VALUES.map(json.dumps) | st.text(max_size=30),
    yaml=st.text(max_size=30)
    | st.sampled_from(["&a [*a]", "&a {b: *a}", "{[1]: 2}", "- - -", "!!python/name:os.system"]),
    tail=st.binary(max_size=10),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_stops_the_report(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], summary: str, yaml: str, tail: bytes
) -> None:
    folder = tmp_path_factory.mktemp("run")
    (folder / ".hydra").mkdir()
    encoded = "\n".join(lines).encode("utf-8", "surrogatepass")
    (folder / "metrics.jsonl").write_bytes(encoded + tail)
    (folder / "episodes.jsonl").write_bytes(tail + encoded)
    (folder / "summary.json").write_bytes(summary.encode("utf-8", "surrogatepass"))
    for name in ("config.yaml", "overrides.yaml", "hydra.yaml"):
        (folder / ".hydra" / name).write_bytes(yaml.encode("utf-8", "surrogatepass") + tail)
    comparison = compare([read_run(folder)], metric="success", seed=0)
    for text in (markdown(comparison, "x.svg"), results_csv(comparison), html_report(comparison, made=datetime.now())):
        assert text.encode("utf-8")

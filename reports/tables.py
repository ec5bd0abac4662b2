"""The comparison as a terminal table and as CSV."""

import csv
import io
import shlex
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from evotext.run_folder.cost import COSTS, EVALUATION_COSTS
from evotext.run_folder.record import NAN, RunRecord
from evotext.run_folder.text import clean

from . import formats
from .comparison import Comparison
from .statistics import Estimate
from .tasks import Contestant, Task

COST_TITLES = {
    "episodes": "Episodes",
    "generated_tokens": "Tokens",
    "seconds": "Time",
    "flops": "Operations",
    "peak_memory_bytes": "Memory",
}
DETAIL_TITLES = {
    "env_steps": "Environment steps",
    "updates": "Updates",
    "rollout_seconds": "Rollout",
    "env_seconds": "Environment",
    "update_seconds": "Update",
    "backward_flops": "Operations backward",
    "evaluation_generated_tokens": "Tokens of evaluation",
    "evaluation_seconds": "Time of evaluation",
    "evaluation_flops": "Operations of evaluation",
}
"""The finer points of what a run cost; the evaluation's are not part of the totals above."""
TERMINAL_COSTS = ("episodes", "generated_tokens", "seconds", "peak_memory_bytes")
# The columns of the terminal table besides the names, at their widest: 0.20 → 0.86, [0.80, 0.92], 12 min 5 s.
WIDTH_OF_FIGURES = 65


def cost_cell(contestant: Contestant, key: str) -> str:
    """Return a mean cost in the form that suits its unit."""
    return shown_cost(key, contestant.cost[key])


def shown_cost(key: str, value: float) -> str:
    """Return a cost in the form that suits its unit."""
    if key.endswith("seconds"):
        return formats.seconds(value)
    return formats.memory(value) if key == "peak_memory_bytes" else formats.count(value)


def change_cell(scores: tuple[Estimate | None, Estimate | None] | None) -> str:
    """Return a score before and after, as pass@k."""
    before, after = scores or (None, None)
    return f"{formats.change(before, after)} {formats.interval(after)}".strip()


def terminal_tables(comparison: Comparison, width: int) -> list[Table]:
    """Return one table of all tasks where names are short enough for the width, else one a task. Numbers are never cut."""
    tasks = comparison.tasks
    longest_task = max((len(task.name) for task in tasks), default=0)
    longest_name = max((len(c.name) for task in tasks for c in task.contestants), default=0)
    if max(longest_task, len("Task")) + max(longest_name, len("Algorithm")) <= width - WIDTH_OF_FIGURES:
        table = _table(comparison, named=True)
        for task in tasks:
            _add_rows(table, task, named=True)
        return [table]
    tables = []
    for task in tasks:
        table = _table(comparison, named=False)
        table.title = Text(task.name, style="bold")
        table.title_justify = "left"
        _add_rows(table, task, named=False)
        tables.append(table)
    return tables


def _table(comparison: Comparison, *, named: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    for heading in ("Task", "Algorithm") if named else ("Algorithm",):
        table.add_column(heading, overflow="fold", min_width=len(heading))
    table.add_column("Seeds", justify="right", no_wrap=True)
    for heading in (comparison.metric.capitalize(), "95% interval"):
        table.add_column(heading, no_wrap=True)
    for key in TERMINAL_COSTS:
        table.add_column(COST_TITLES[key], justify="right", no_wrap=True)
    return table


def _add_rows(table: Table, task: Task, *, named: bool) -> None:
    for i, contestant in enumerate(task.contestants):
        table.add_row(
            *([Text(task.name if i == 0 else "")] if named else []),
            Text(contestant.name),
            str(len(contestant.counted)),
            Text(formats.change(contestant.before, contestant.after)),
            Text(formats.interval(contestant.after)),
            *(cost_cell(contestant, key) for key in TERMINAL_COSTS),
            end_section=i == len(task.contestants) - 1,
        )


def results_csv(comparison: Comparison) -> str:
    """Return one line a run, counted or not."""
    places = [
        (task.name, contestant.name, run in contestant.counted, run)
        for task in comparison.tasks
        for contestant in task.contestants
        for run in (*contestant.counted, *contestant.others)
    ]
    places += [("", "", False, run) for run in comparison.unnamed]
    places += [("", "", False, trial.run) for tuning in comparison.tunings for trial in tuning.trials]
    ks = sorted({k for *_, run in places for k in run.passes_after})
    lines = [_csv_line(*place, ks) for place in places]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if lines:
        writer.writerow(lines[0])
        writer.writerows(["" if v is None or v != v else v for v in line.values()] for line in lines)
    return out.getvalue()


def _csv_line(task: str, contestant: str, counted: bool, run: RunRecord, ks: Sequence[int]) -> dict[str, object]:
    return {
        "task": task,
        "contestant": contestant,
        "counted": int(counted),
        "algorithm": run.algorithm,
        "env": run.env,
        "model": run.model,
        "seed": run.seed,
        "search": run.draw + 1,
        "phase": run.phase,
        "status": run.status,
        "success_before": run.before.get("success", NAN),
        "success_after": run.after.get("success", NAN),
        "return_before": run.before.get("return", NAN),
        "return_after": run.after.get("return", NAN),
        **{f"pass_at_{k}": run.passes_after.get(k, NAN) for k in ks},
        **{key: run.cost.get(key, NAN) for key in (*COSTS, *EVALUATION_COSTS)},
        "faults": sum(run.faults.values()),
        "evaluation_faults": sum(run.evaluation_faults.values()),
        "budget_unit": run.budget_unit,
        "budget_limit": run.budget_limit,
        "budget_spent": run.budget_spent,
        "compared_at": run.compared_at,
        "eval_episodes": run.eval_episodes,
        "decoding": run.decoding,
        "split": run.split,
        "saved_generation": run.saved_generation,
        "success_best": run.best.get("success", NAN),
        "return_best": run.best.get("return", NAN),
        "device": run.device,
        "reason": run.reason,
        "overrides": shlex.join(run.overrides),
        "folder": clean(str(run.folder), 4096),
    }


def title(comparison: Comparison) -> str:
    """Return the title of the comparison."""
    algorithms = list(dict.fromkeys(run.algorithm for run in comparison.runs if run.algorithm and run.env))
    envs = list(dict.fromkeys(run.env for run in comparison.runs if run.algorithm and run.env))
    return f"{formats.listed(sorted(algorithms))} on {formats.listed(sorted(envs))}" if envs else "No readable runs"


def what_happened(run: RunRecord) -> str:
    """Return the ending of a run, and what is wrong with its files."""
    ending = run.status + (f" ({run.reason})" if run.reason else "")
    if run.status == "unfinished" and run.progress == run.progress:
        ending += f", {run.progress:.0%} of its budget spent"
    if run.saved_generation is not None and run.points and run.saved_generation < run.points[-1].generation:
        name, score = next(((name, score) for name, score in run.best.items() if score == score), ("score", NAN))
        ending += (
            f", saved the weights of generation {run.saved_generation} ({run.split} {name} {formats.score(score)})"
        )
    return "; ".join([ending, *run.problems])

"""The comparison as a terminal table, as Markdown and as CSV."""

import csv
import io
import re
import shlex

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from evotext.reports import formats
from evotext.reports.comparison import Comparison, Contestant, Task
from evotext.reports.figures import METRIC_TITLES
from evotext.reports.records import COSTS, NAN, RunRecord
from evotext.reports.runs import clean
from evotext.reports.verdicts import answer, explained, setting, verdict

COST_TITLES = {
    "episodes": "Episodes",
    "generated_tokens": "Tokens",
    "seconds": "Time",
    "flops": "Operations",
    "peak_memory_bytes": "Memory",
}
TERMINAL_COSTS = ("episodes", "generated_tokens", "seconds", "peak_memory_bytes")
# The columns of the terminal table besides the names, at their widest: 0.20 → 0.86, [0.80, 0.92], 12 min 5 s.
WIDTH_OF_FIGURES = 65


def cost_cell(contestant: Contestant, key: str) -> str:
    """A mean cost in the form that suits its unit."""
    shown = {"seconds": formats.seconds, "peak_memory_bytes": formats.memory}.get(key, formats.count)
    return shown(contestant.cost[key])


def terminal_tables(comparison: Comparison, width: int) -> list[Table]:
    """One table of all tasks where names are short enough for the width, else one a task. Figures are never cut."""
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


def markdown(comparison: Comparison, picture: str) -> str:
    """The report for a pull request. picture: path of the static picture, relative to it."""
    lines = [f"# {_plain(title(comparison))}", "", *[_plain(sentence) + "\n" for sentence in answer(comparison)]]
    lines += [f"![{METRIC_TITLES[comparison.metric]} over training]({picture})", ""]
    for task in comparison.tasks:
        lines += [f"## {_plain(task.name)}", "", _plain(" ".join([verdict(task), setting(task)]).strip()), ""]
        lines += [f"* **Not comparable:** {_plain(reason)}" for reason in task.unfair]
        lines += [f"* Note: {_plain(note)}" for note in task.notes]
        lines += [""] if task.unfair or task.notes else []
        lines += _results(task, comparison) + _duels(task)
    missing = [run for run in comparison.runs if run.status != "completed" or run.problems]
    if missing:
        lines += ["## Runs that ended otherwise, or with damaged files", ""]
        lines += [f"* {_code(comparison.labels[run.folder])}: {_plain(what_happened(run))}" for run in missing] + [""]
    lines += ["## To repeat it", "", "```bash"]
    lines += list(dict.fromkeys(command(run) for run in comparison.runs if run.overrides))
    lines += ["```", ""]
    return "\n".join(lines)


def results_csv(comparison: Comparison) -> str:
    """One line a run, counted or not."""
    places = [
        (task.name, contestant.name, run in contestant.counted, run)
        for task in comparison.tasks
        for contestant in task.contestants
        for run in (*contestant.counted, *contestant.others)
    ]
    places += [("", "", False, run) for run in comparison.unnamed]
    lines = [_csv_line(*place) for place in places]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if lines:
        writer.writerow(lines[0])
        writer.writerows(["" if v is None or v != v else v for v in line.values()] for line in lines)
    return out.getvalue()


def _csv_line(task: str, contestant: str, counted: bool, run: RunRecord) -> dict[str, object]:
    return {
        "task": task,
        "contestant": contestant,
        "counted": int(counted),
        "algorithm": run.algorithm,
        "env": run.env,
        "model": run.model,
        "seed": run.seed,
        "status": run.status,
        "success_before": run.before.get("success", NAN),
        "success_after": run.after.get("success", NAN),
        "return_before": run.before.get("return", NAN),
        "return_after": run.after.get("return", NAN),
        **{key: run.cost.get(key, NAN) for key in COSTS},
        "budget_unit": run.budget_unit,
        "budget_limit": run.budget_limit,
        "budget_spent": run.budget_spent,
        "eval_episodes": run.eval_episodes,
        "decoding": run.decoding,
        "device": run.device,
        "reason": run.reason,
        "overrides": shlex.join(run.overrides),
        "folder": clean(str(run.folder), 4096),
    }


def title(comparison: Comparison) -> str:
    """What is compared."""
    algorithms = list(dict.fromkeys(run.algorithm for run in comparison.runs if run.algorithm and run.env))
    envs = list(dict.fromkeys(run.env for run in comparison.runs if run.algorithm and run.env))
    return f"{formats.listed(sorted(algorithms))} on {formats.listed(sorted(envs))}" if envs else "No readable runs"


def command(run: RunRecord) -> str:
    """The command line that made the run."""
    return "python scripts/train.py " + shlex.join(run.overrides)


def what_happened(run: RunRecord) -> str:
    """How a run ended, and what is wrong with its files."""
    ending = run.status + (f" ({run.reason})" if run.reason else "")
    return "; ".join([ending, *run.problems])


def _results(task: Task, comparison: Comparison) -> list[str]:
    heads = ["Algorithm", "Seeds", "Before", f"{comparison.metric.capitalize()} after", *COST_TITLES.values()]
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for c in task.contestants:
        after = f"{formats.score(c.after.value)} {formats.interval(c.after)}".strip() if c.after else formats.MISSING
        before = formats.score(c.before.value) if c.before else formats.MISSING
        cells = [_plain(c.name), str(len(c.counted)), before, after, *(cost_cell(c, key) for key in COST_TITLES)]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _duels(task: Task) -> list[str]:
    if not task.duels:
        return []
    lines = ["| Pair | Probability of improvement | Adjusted p | |", "| --- | ---: | ---: | --- |"]
    for duel in task.duels:
        improvement = f"{formats.score(duel.improvement.value)} {formats.interval(duel.improvement)}"
        pair = _plain(f"{duel.first} over {duel.second}")
        lines.append(f"| {pair} | {improvement} | {duel.p_value:.3f} | {explained(duel)} |")
    return [*lines, ""]


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$])", r"\\\1", text)


def _code(text: str) -> str:
    """Text in a code span: a fence longer than any in it."""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"

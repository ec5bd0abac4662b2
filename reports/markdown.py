"""The comparison as Markdown, for a pull request."""

import re
from collections.abc import Sequence

from . import formats
from .across import Sweep
from .comparison import Comparison
from .figures import metric_title
from .repeat import command
from .sheets import Sheet
from .tables import COST_TITLES, change_cell, cost_cell, shown_cost, title, what_happened
from .tasks import Duel, Task
from .tuning import Tuning
from .verdicts import answer, explained, setting, sweep_verdict, verdict


def markdown(comparison: Comparison, picture: str) -> str:
    """Return the report for a pull request. picture: path of the static picture, relative to it."""
    lines = [f"# {_plain(title(comparison))}", "", *[_plain(sentence) + "\n" for sentence in answer(comparison)]]
    lines += [f"![{metric_title(comparison.metric, comparison.tasks)} over training]({picture})", ""]
    lines += _overall(comparison) + [line for sweep in comparison.sweeps for line in _sweep(sweep)]
    for task in comparison.tasks:
        lines += [f"## {_plain(task.name)}", "", _plain(" ".join([verdict(task), setting(task)]).strip()), ""]
        lines += [f"* **Not comparable:** {_plain(reason)}" for reason in task.unfair]
        lines += [f"* Note: {_plain(note)}" for note in task.notes]
        lines += [""] if task.unfair or task.notes else []
        lines += _results(task, comparison) + _by_task(task) + _passes(task) + _duels(task.duels)
        lines += [line for sheet in comparison.sheets[task.name] for line in _sheet(sheet)]
    lines += [line for tuning in comparison.tunings for line in _tuning(tuning)]
    missing = [run for run in comparison.runs if run.status != "completed" or run.reason or run.problems]
    if missing:
        lines += ["## Runs that ended otherwise, or with damaged files", ""]
        lines += [f"* {_code(comparison.labels[run.folder])}: {_plain(what_happened(run))}" for run in missing] + [""]
    lines += ["## To repeat it", "", "```bash"]
    lines += list(dict.fromkeys(command(run) for run in comparison.runs if run.overrides))
    lines += ["```", ""]
    return "\n".join(lines)


def _results(task: Task, comparison: Comparison) -> list[str]:
    heads = ["Algorithm", "Seeds", "Before", f"{comparison.metric.capitalize()} after", *COST_TITLES.values()]
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for c in task.contestants:
        after = f"{formats.score(c.after.value)} {formats.interval(c.after)}".strip() if c.after else formats.MISSING
        before = formats.score(c.before.value) if c.before else formats.MISSING
        cells = [_plain(c.name), str(len(c.counted)), before, after, *(cost_cell(c, key) for key in COST_TITLES)]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _sheet(sheet: Sheet) -> list[str]:
    lines = [f"### {_plain(sheet.title)}", "", _plain(sheet.note), "", f"| {' | '.join(map(_plain, sheet.heads))} |"]
    lines.append("| --- |" + " ---: |" * (len(sheet.heads) - 1))
    return [*lines, *(f"| {' | '.join(map(_plain, row))} |" for row in sheet.rows), ""]


def _overall(comparison: Comparison) -> list[str]:
    overall = comparison.overall
    if overall is None:
        return []
    lines = ["## Over all tasks", "", f"Interquartile mean over {_plain(formats.listed(list(overall.tasks)))}.", ""]
    lines += [f"* Left out: {_plain(reason)}" for reason in overall.left_out] + ([""] if overall.left_out else [])
    lines += [f"| Algorithm | Runs | {comparison.metric.capitalize()} after |", "| --- | ---: | ---: |"]
    for profile in overall.profiles:
        score = f"{formats.score(profile.score.value)} {formats.interval(profile.score)}".strip()
        lines.append(f"| {_plain(profile.name)} | {profile.score.runs} | {score} |")
    return [*lines, "", *_duels(overall.duels)]


def _sweep(sweep: Sweep) -> list[str]:
    finding = sweep_verdict(sweep)
    lines = [f"## {_plain(f'{sweep.name} against {sweep.option}')}", "", _plain(finding[0].upper() + finding[1:]) + "."]
    heads = " | ".join([_plain(sweep.option), *(f"{value:g}" for value in sweep.values)])
    lines += ["", f"| {heads} |", "| --- |" + " ---: |" * len(sweep.values)]
    for name, line in sweep.lines.items():
        cells = {value: formats.score(found) for value, found in zip(line.cost, line.score, strict=True)}
        lines.append(f"| {_plain(name)} | {' | '.join(cells.get(v, formats.MISSING) for v in sweep.values)} |")
    return [*lines, ""]


def _tuning(tuning: Tuning) -> list[str]:
    keys = list(tuning.trials[0].values)
    heads = " | ".join([*map(_plain, keys), "Score", "Reported"])
    costs = [f"{shown_cost(key, tuning.cost[key])} {COST_TITLES[key].lower()}" for key in ("episodes", "flops")]
    lines = [f"## {_plain(f'Tuning of {tuning.title}')}", ""]
    lines += [f"{len(tuning.trials)} trials, {formats.listed(costs)} in all.", "", f"| {heads} |"]
    lines.append("| " + "--- | " * len(keys) + "---: | --- |")
    for trial in tuning.trials:
        score = formats.score(trial.score) if trial.run.status == "completed" else trial.run.status
        cells = " | ".join([*map(_plain, trial.values.values()), score, "yes" if trial.reported else ""])
        lines.append(f"| {cells} |")
    return [*lines, ""]


def _by_task(task: Task) -> list[str]:
    names = list(dict.fromkeys(name for c in task.contestants for name in c.by_task))
    if not names:
        return []
    lines = [f"| On each task | {' | '.join(map(_plain, names))} |", "| --- |" + " ---: |" * len(names)]
    lines += [
        f"| {_plain(c.name)} | {' | '.join(change_cell(c.by_task.get(name)) for name in names)} |"
        for c in task.contestants
    ]
    return [*lines, ""]


def _passes(task: Task) -> list[str]:
    ks = sorted({k for c in task.contestants for k in c.passes})
    if not ks:
        return []
    lines = [f"| Sampled at temperature 1 | {' | '.join(f'pass@{k}' for k in ks)} |", "| --- |" + " ---: |" * len(ks)]
    lines += [
        f"| {_plain(c.name)} | {' | '.join(change_cell(c.passes.get(k)) for k in ks)} |" for c in task.contestants
    ]
    return [*lines, ""]


def _duels(duels: Sequence[Duel]) -> list[str]:
    if not duels:
        return []
    lines = ["| Pair | Probability of improvement | Adjusted p | |", "| --- | ---: | ---: | --- |"]
    for duel in duels:
        improvement = f"{formats.score(duel.improvement.value)} {formats.interval(duel.improvement)}"
        pair = _plain(f"{duel.first} over {duel.second}")
        lines.append(f"| {pair} | {improvement} | {formats.p_value(duel.p_value)} | {explained(duel)} |")
    return [*lines, ""]


def _plain(text: str) -> str:
    """Escape text so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$])", r"\\\1", text)


def _code(text: str) -> str:
    """Return text in a code span: a fence longer than any in it."""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"

r"""The comparison's tables as LaTeX with booktabs: `\usepackage{booktabs}`, then `\input{tables.tex}`."""

from collections.abc import Sequence

from . import formats
from .comparison import Comparison
from .sheets import Sheet
from .tables import COST_TITLES, cost_cell
from .tasks import Duel, Task
from .verdicts import explained

SPECIAL = {
    "\\": r"\textbackslash{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "→": r"$\rightarrow$",
    formats.MISSING: "--",
}


def latex(comparison: Comparison) -> str:
    """Return every table of the report, each a `table` of its own."""
    sheets = [sheet for task in comparison.tasks for sheet in _of_task(task, comparison)]
    if comparison.overall is not None:
        profiles = comparison.overall.profiles
        rows = [(p.name, str(p.score.runs), formats.score(p.score.value), formats.interval(p.score)) for p in profiles]
        heads = ("Algorithm", "Runs", comparison.metric.capitalize(), "95% interval")
        note = f"Interquartile mean over {formats.listed(list(comparison.overall.tasks))}."
        sheets.append(Sheet(title="Over all tasks", note=note, heads=heads, rows=tuple(rows)))
        sheets += _pairs("Over all tasks", comparison.overall.duels)
    return "\n".join(map(_table, sheets))


def _of_task(task: Task, comparison: Comparison) -> list[Sheet]:
    heads = ("Algorithm", "Seeds", "Before", comparison.metric.capitalize(), "95% interval", *COST_TITLES.values())
    rows = tuple(
        (
            c.name,
            str(len(c.counted)),
            formats.score(c.before.value) if c.before else formats.MISSING,
            formats.score(c.after.value) if c.after else formats.MISSING,
            formats.interval(c.after),
            *(cost_cell(c, key) for key in COST_TITLES),
        )
        for c in task.contestants
    )
    main = Sheet(title=task.name, note="Mean costs of a run.", heads=heads, rows=rows)
    further = [
        Sheet(title=f"{task.name}: {sheet.title}", note=sheet.note, heads=sheet.heads, rows=sheet.rows)
        for sheet in comparison.sheets[task.name]
    ]
    return [main, *_pairs(task.name, task.duels), *further]


def _pairs(name: str, duels: Sequence[Duel]) -> list[Sheet]:
    if not duels:
        return []
    rows = tuple(
        (
            f"{duel.first} over {duel.second}",
            f"{formats.score(duel.improvement.value)} {formats.interval(duel.improvement)}",
            formats.p_value(duel.p_value),
            explained(duel),
        )
        for duel in duels
    )
    heads = ("Pair", "Probability of improvement", "Adjusted p", "")
    return [Sheet(title=f"{name}: pairs", note="Adjusted for all pairs of the page (Holm).", heads=heads, rows=rows)]


def _table(sheet: Sheet) -> str:
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{_plain(sheet.title)}. {_plain(sheet.note)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(sheet.heads) - 1)}}}",
        r"\toprule",
        _row(sheet.heads),
        r"\midrule",
        *map(_row, sheet.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    """Write a row. Braces keep a cell that begins with a bracket from being read as the argument of the row before."""
    return " & ".join(f"{{{_plain(cell)}}}" if cell.startswith("[") else _plain(cell) for cell in cells) + r" \\"


def _plain(text: str) -> str:
    """Escape text so that LaTeX shows it as it is."""
    return "".join(SPECIAL.get(sign, sign) for sign in text)

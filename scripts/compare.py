"""Compare finished runs: `python scripts/compare.py RUN_DIR... [out=DIR] [metric=success|return]`.

RUN_DIR is a run's folder or any folder above several, such as that of a sweep. Writes report.html (one file, opens
without a network), report.md, curves.svg and results.csv into `out`, by default a new folder in `reports/`.
"""

import difflib
import io
import os
import sys
from datetime import datetime
from pathlib import Path

from rich.console import Console

from evotext.reports.comparison import compare
from evotext.reports.figures import first_axis
from evotext.reports.html_report import html_report
from evotext.reports.markdown import markdown
from evotext.reports.picture import picture
from evotext.reports.runs import find_runs, read_run
from evotext.reports.tables import results_csv, terminal_tables
from evotext.reports.verdicts import answer

BOOTSTRAP_SEED = 0  # the same runs give the same report
KEYS = ("out", "metric")
METRICS = ("success", "return")


def main(words: list[str]) -> None:
    """Read the runs, print the table, write the files. Raises ValueError for what the user should change."""
    now = datetime.now()
    folders, options = parse(words)
    metric = options.get("metric", "success")
    if metric not in METRICS:
        raise ValueError(f"expected metric={' or metric='.join(METRICS)}, got metric={metric}{near(metric, METRICS)}")
    out = Path(options.get("out") or Path("reports") / now.strftime("%Y-%m-%d_%H-%M-%S-%f"))
    runs = [read_run(folder) for folder in find_runs([Path(folder) for folder in folders])]
    comparison = compare(runs, metric="return" if metric == "return" else "success", seed=BOOTSTRAP_SEED)
    files = {
        "report.html": html_report(comparison, made=now),
        "report.md": markdown(comparison, "curves.svg"),
        "results.csv": results_csv(comparison),
        "curves.svg": picture(comparison, first_axis(comparison)),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"expected a folder to write to, got out={out}: {error.strerror or error}") from error
    console = Console(highlight=False, markup=False, soft_wrap=False)
    with console.capture() as printed:
        for table in terminal_tables(comparison, console.width):
            console.print(table)
            console.print()
        for sentence in answer(comparison):
            console.print(sentence)
        for task in comparison.tasks:
            for remark in (*(f"not a fair comparison: {reason}" for reason in task.unfair), *task.notes):
                console.print(f"{task.name}: {remark}")
        for run in comparison.unnamed:
            console.print(
                f"{comparison.labels[run.folder]}: not counted: {'; '.join(run.problems) or 'no names recorded'}"
            )
    print(printed.get(), end="")
    print(f"Report: {out / 'report.html'}")


def parse(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Folders, and the values of `key=value` words."""
    folders: list[str] = []
    options: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key in KEYS and equals:
            if not value:
                raise ValueError(f"expected a value after {key}=, got nothing")
            options[key] = value
        elif word.startswith("-") or (equals and not Path(word).exists()):
            raise ValueError(f"expected folders and {', '.join(f'{k}=' for k in KEYS)}, got {word!r}{near(key, KEYS)}")
        else:
            folders.append(word)
    if not folders:
        raise ValueError("expected at least one run folder, got none: python scripts/compare.py RUN_DIR... [out=DIR]")
    return folders, options


def near(word: str, known: tuple[str, ...]) -> str:
    """A suggestion, if some known word is like this one."""
    matches = difflib.get_close_matches(word.lstrip("-"), known, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


if __name__ == "__main__":
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        sys.exit(0)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without arrows and dashes still gets its table
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has left (`| head`); the files were written before the first line
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ValueError as error:
        print(f"compare.py: {error}", file=sys.stderr)
        sys.exit(2)

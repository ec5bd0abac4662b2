"""Compare runs: `python scripts/compare.py RUN_DIR... [out=DIR] [metric=success|return] [watch=true|SECONDS]`.

RUN_DIR is a run's folder or any folder above several, such as that of a sweep. Writes report.html (one file, opens
without a network), report.md, curves.svg and results.csv into `out`, by default a new folder in `comparisons/`. With
`watch=true` (or `--watch`) it does so again while runs go on, and the page reads itself again; Ctrl-C ends it.
"""

import difflib
import io
import os
import sys
import time
from datetime import datetime
from pathlib import Path

from rich.console import Console

from evotext.run_folder.find import find_runs
from evotext.run_folder.reader import read_run
from evotext.run_folder.record import Metric
from reports.comparison import Comparison, compare
from reports.figures import first_axis
from reports.html_report import html_report
from reports.markdown import markdown
from reports.picture import picture
from reports.tables import results_csv, terminal_tables
from reports.verdicts import answer

BOOTSTRAP_SEED = 0  # the same runs give the same report
KEYS = ("out", "metric", "watch")
EVERY = 20
"""Seconds between two looks of `watch=true`."""
METRICS = ("success", "return")


def main(words: list[str]) -> None:
    """Read the runs, print the table, write the files. Raises ValueError for what the user should change."""
    now = datetime.now()
    folders, options = parse(words)
    chosen = options.get("metric", "success")
    if chosen not in METRICS:
        raise ValueError(f"expected metric={' or metric='.join(METRICS)}, got metric={chosen}{near(chosen, METRICS)}")
    metric: Metric = "return" if chosen == "return" else "success"
    out = Path(options.get("out") or Path("comparisons") / now.strftime("%Y-%m-%d_%H-%M-%S-%f"))
    seconds = interval(options.get("watch", "false"))
    if seconds:
        watch([Path(folder) for folder in folders], out, metric, seconds)
    else:
        comparison = read([Path(folder) for folder in folders], metric)
        write(comparison, out)
        show(comparison)
    print(f"Report: {out / 'report.html'}")


def read(folders: list[Path], metric: Metric) -> Comparison:
    """Everything that the folders say."""
    return compare([read_run(folder) for folder in find_runs(folders)], metric=metric, seed=BOOTSTRAP_SEED)


def write(comparison: Comparison, out: Path, refresh: int | None = None) -> None:
    """All files, each moved into its place when whole. refresh: see `html_report`."""
    files = {
        "report.html": html_report(comparison, made=datetime.now(), refresh=refresh),
        "report.md": markdown(comparison, "curves.svg"),
        "results.csv": results_csv(comparison),
        "curves.svg": picture(comparison, first_axis(comparison)),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            aside = out / f".{name}.writing"
            aside.write_text(text, encoding="utf-8")
            os.replace(aside, out / name)
    except OSError as error:
        raise ValueError(f"expected a folder to write to, got out={out}: {error.strerror or error}") from error


def show(comparison: Comparison) -> None:
    """Print the tables, the answer and what a reader should know."""
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


def watch(folders: list[Path], out: Path, metric: Metric, seconds: int) -> None:
    """Write the report anew whenever the runs have changed, until Ctrl-C; then once more, as a page that stays."""
    print(f"watching: {out / 'report.html'} is written anew every {seconds} s if something has changed; Ctrl-C ends it")
    last, comparison = "", None
    try:
        while True:
            try:
                comparison = read(folders, metric)
                state = standing(comparison)
            except ValueError as error:  # the first run has yet to begin
                state = f"waiting: {error}"
            if state != last:
                if comparison:
                    write(comparison, out, refresh=seconds)
                print(f"{datetime.now():%H:%M:%S}  {state}", flush=True)
                last = state
            time.sleep(seconds)
    except KeyboardInterrupt:
        if comparison:
            write(comparison, out)


def standing(comparison: Comparison) -> str:
    """How many runs have ended how, and how far the others are, in a line."""
    ended = [run.status for run in comparison.runs if run.status != "unfinished"]
    parts = [f"{ended.count(status)} {status}" for status in dict.fromkeys(ended)]
    going_on = [f"{run.progress:.0%}" for run in comparison.runs if run.status == "unfinished"]
    parts += [f"{len(going_on)} unfinished ({', '.join(going_on).replace('nan%', 'unknown')})"] if going_on else []
    trials = sum(len(tuning.trials) for tuning in comparison.tunings)
    parts += [f"{trials} of tuning"] if trials else []
    count = len(comparison.runs)
    return f"{count} {'run' if count == 1 else 'runs'}: {', '.join(parts) or 'none yet'}"


def interval(text: str) -> int | None:
    """Seconds between two looks: `true` takes the default, `false` looks once."""
    if text.lower() in ("true", "false"):
        return EVERY if text.lower() == "true" else None
    if not text.isdecimal() or not 1 <= int(text) <= 86_400:
        raise ValueError(f"expected watch=true, watch=false or watch=SECONDS (1 to 86400), got watch={text}")
    return int(text)


def parse(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Folders, and the values of `key=value` words."""
    folders: list[str] = []
    options: dict[str, str] = {}
    for word in words:
        word = "watch=true" if word == "--watch" else word
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
    if {"-h", "--help"} & set(sys.argv[1:]):
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
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

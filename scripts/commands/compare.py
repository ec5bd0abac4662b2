"""Compare runs: `evotext compare RUN_DIR... [out=DIR] [metric=success|return] [watch=true|SECONDS] [port=N]`.

RUN_DIR is a run's folder or any folder above several, such as that of a sweep. Writes report.html (one file, opens
without a network), report.md, tables.tex, curves.svg and results.csv into `out`, by default a new folder in
`comparisons/`. With `watch=true` (or `--watch`) it does so again while runs go on, and the page reloads itself. Meanwhile a
page with curves, time left and the newest episodes is served at the address that is printed, on this machine alone; Ctrl-C
ends both.
"""

import io
import math
import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field
from rich.console import Console

from evotext.cli import settings
from evotext.cli.errors import ConfigError, configuration
from evotext.cli.jobs import hush
from evotext.cli.messages import suggestion
from evotext.reports import comparison as comparisons
from evotext.reports import figures, formats, html_report, latex, live, markdown, picture, tables, verdicts
from evotext.run_folder.find import find_runs
from evotext.run_folder.reader import read_run
from evotext.run_folder.record import Metric, RunRecord

from .live_server import serving

BOOTSTRAP_SEED = 0  # the same runs give the same report
NAME = "%Y-%m-%d_%H-%M-%S-%f"
EVERY = 20
"""Seconds between two looks of `watch=true`."""
LIVE_EVERY = 5
"""The same of the live page, at most."""


class Settings(settings.Settings):
    """The settings of a comparison."""

    out: Path | None = None
    metric: Metric | None = None
    """Unless chosen, success, or the return of runs none of which knows a success."""
    port: Annotated[int, Field(ge=0, lt=65_536)] = 0
    """The live page's port; 0: any that is free."""
    watch: Annotated[Annotated[int, Field(ge=1, le=86_400)] | bool, Field(union_mode="left_to_right")] = False


def main(words: list[str]) -> int:
    """Read the runs, print the table, write the files; the exit status. Raise ConfigError for what the user should change."""
    now = datetime.now()
    told, others = settings.read(
        ["watch=true" if word == "--watch" else word for word in words], Settings, description=__doc__
    )
    for word in others:
        key, equals, _ = word.partition("=")
        if equals and not Path(word).exists():
            raise ConfigError(f"expected folders and settings, got {word!r}{suggestion(key, Settings.model_fields)}")
    if not others:
        raise ConfigError("expected at least one run's folder, got none: evotext compare RUN_DIR... [out=DIR]")
    folders, out = [Path(word) for word in others], told.out or Path("comparisons") / now.strftime(NAME)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without arrows and dashes still gets its table
    with configuration():
        if told.watch:
            watch(folders, out, told.metric, EVERY if told.watch is True else told.watch, told.port)
        else:
            comparison = read(folders, told.metric)
            write(comparison, out)
    try:
        if not told.watch:
            show(comparison)
        print(f"Report: {out / 'report.html'}", flush=True)
    except BrokenPipeError:  # the reader has left (`| head`); the files have been written
        hush()
    return 0


def read(folders: list[Path], metric: Metric | None) -> comparisons.Comparison:
    """Read everything in the folders."""
    found = [read_run(folder) for folder in find_runs(folders)]
    return comparisons.compare(found, metric=metric, seed=BOOTSTRAP_SEED)


def write(comparison: comparisons.Comparison, out: Path, refresh: int | None = None) -> None:
    """Write all files, each moved into its place when whole. refresh: as in `html_report`."""
    files = {
        "report.html": html_report.html_report(comparison, made=datetime.now(), refresh=refresh),
        "report.md": markdown.markdown(comparison, "curves.svg"),
        "results.csv": tables.results_csv(comparison),
        "tables.tex": latex.latex(comparison),
        "curves.svg": picture.picture(comparison, figures.first_axis(comparison)),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            aside = out / f".{name}.writing"
            aside.write_text(text, encoding="utf-8")
            os.replace(aside, out / name)
    except OSError as error:
        raise ValueError(f"expected a folder to write to, got out={out}: {error.strerror or error}") from error


def show(comparison: comparisons.Comparison) -> None:
    """Print the tables, the answer and what a reader should know."""
    console = Console(highlight=False, markup=False, soft_wrap=False)
    with console.capture() as printed:
        for table in tables.terminal_tables(comparison, console.width):
            console.print(table)
            console.print()
        for sentence in verdicts.answer(comparison):
            console.print(sentence)
        for task in comparison.tasks:
            for remark in (*(f"not a fair comparison: {reason}" for reason in task.unfair), *task.notes):
                console.print(f"{task.name}: {remark}")
        for run in comparison.unnamed:
            console.print(
                f"{comparison.labels[run.folder]}: not counted: {'; '.join(run.problems) or 'no names recorded'}"
            )
    print(printed.get(), end="")


def watch(folders: list[Path], out: Path, metric: Metric | None, seconds: int, port: int) -> None:
    """Serve the live page, and write the report again whenever the runs have changed, until Ctrl-C; then once more, as a
    page that stays.
    """

    def page() -> str:
        runs = [read_run(folder) for folder in find_runs(folders)]
        return live.live_page(runs, now=datetime.now(), refresh=min(seconds, LIVE_EVERY))

    last, comparison = "", None
    try:
        with serving({"/": page}, port=port) as address:
            print(
                f"watching: {address} is live; {out / 'report.html'} is written anew every {seconds} s if something has "
                "changed; Ctrl-C ends both",
                flush=True,
            )
            while True:
                try:
                    comparison = read(folders, metric)
                    state = standing(comparison)
                except ValueError as error:  # the first run has yet to begin
                    state = f"waiting: {error}"
                if state != last:
                    if comparison:
                        write(comparison, out, refresh=seconds)
                    left = time_left(comparison.runs) if comparison else ""
                    print(f"{datetime.now():%H:%M:%S}  {state}{left}", flush=True)
                    last = state
                time.sleep(seconds)
    except KeyboardInterrupt:
        if comparison:
            write(comparison, out)


def time_left(runs: Sequence[RunRecord]) -> str:
    """Say when the last of the runs that go on has spent its budget, at its speed so far; nothing where that is not known."""
    known = [left for run in runs if math.isfinite(left := live.seconds_left(run))]
    return f", about {formats.seconds(max(known))} left" if known else ""


def standing(comparison: comparisons.Comparison) -> str:
    """Say in a line how many runs have ended how, and how far the others are."""
    ended = [run.status for run in comparison.runs if run.status != "unfinished"]
    parts = [f"{ended.count(status)} {status}" for status in dict.fromkeys(ended)]
    going_on = [f"{run.progress:.0%}" for run in comparison.runs if run.status == "unfinished"]
    parts += [f"{len(going_on)} unfinished ({', '.join(going_on).replace('nan%', 'unknown')})"] if going_on else []
    trials = sum(len(tuning.trials) for tuning in comparison.tunings)
    parts += [f"{trials} of tuning"] if trials else []
    count = len(comparison.runs)
    return f"{count} {'run' if count == 1 else 'runs'}: {', '.join(parts) or 'none yet'}"

"""Runs jobs as processes of their own, some at once: one that fails, however it fails, leaves the others alone."""

import json
import math
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evotext.run_folder import names
from evotext.run_folder.record import Metric

from .outcome import record
from .plan import Job


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A job that was not completed."""

    job: Job
    reason: str
    """The last line that it printed."""


def run_in_process(job: Job, command: Sequence[str], threads: int) -> str | None:
    """Run one job as `command` with its words, after removing an earlier attempt; return None if completed, else why not.

    Raise KeyboardInterrupt if the job was stopped by Ctrl-C.
    """
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)
    words = [*job.words, f"threads={threads}", f"hydra.run.dir={job.folder}"]
    with (job.folder / names.LOG).open("w", encoding="utf-8") as log:
        done = subprocess.run([*command, *words], stdout=log, stderr=subprocess.STDOUT, check=False)  # noqa: S603
    if done.returncode == 0:
        (job.folder / names.WORDS).write_text(json.dumps(job.words), encoding="utf-8")
        return None
    lines = (job.folder / names.LOG).read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), f"exit status {done.returncode}")


def execute(
    jobs: Sequence[Job], run: Callable[[Job], str | None], *, at_once: int, title: str, console: Console
) -> list[Failure]:
    """Run every job that is not done yet; return the failed ones. Raise KeyboardInterrupt once the running ones have ended."""
    waiting = [job for job in jobs if record(job) is None]
    failures: list[Failure] = []
    columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
        ThreadPoolExecutor(at_once) as pool,
    ):
        # Time is estimated from the jobs of this call alone: done ones took none of it.
        shown = bar.add_task(title, total=len(waiting))
        running: dict[Future[str | None], Job] = {}
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    job = waiting.pop(0)
                    running[pool.submit(run, job)] = job
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    reason = future.result()
                    if reason is not None:
                        failures.append(Failure(job=job, reason=reason))
                    bar.update(shown, advance=1)
                    console.print(f"{'done' if reason is None else 'FAILED'}: {job.title}{_score(job)}", soft_wrap=True)
        except KeyboardInterrupt:
            wait(running)  # they got the same signal and record what they have
            raise
    return failures


def _score(job: Job) -> str:
    run = record(job)
    if run is None:
        return ""
    metric: Metric = "success" if math.isfinite(run.after["success"]) else "return"
    return f"  {metric} {run.before[metric]:.2f} -> {run.after[metric]:.2f}"

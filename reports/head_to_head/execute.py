"""Runs jobs as processes of their own, some at once: one that fails, however it fails, leaves the others alone."""

import json
import math
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from evotext.run_folder import names
from evotext.run_folder.record import Metric

from ..formats import seconds
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
    # Not rich's own estimate of the time left, which forgets jobs that ended more than half a minute ago.
    columns = (
        *(TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn()),
        TextColumn("{task.fields[left]}", markup=False),
    )
    begin, done = time.monotonic(), 0
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
        ThreadPoolExecutor(at_once) as pool,
    ):
        # Time is estimated from the jobs of this call alone: done ones took none of it.
        total = len(waiting)
        shown = bar.add_task(title, total=total, left="")
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
                    done += 1
                    left = time_left(time.monotonic() - begin, done, total)
                    bar.update(shown, advance=1, left=left)
                    ended = f"{'done' if reason is None else 'FAILED'}: {job.title}{_score(job)}"
                    console.print(f"{ended}{f'  {done} of {total}, {left}' if left else ''}", soft_wrap=True)
        except KeyboardInterrupt:
            wait(running)  # they got the same signal and record what they have
            raise
    return failures


def time_left(elapsed: float, done: int, total: int) -> str:
    """Return in words how many more seconds the rest takes at the pace so far; nothing where nothing is left."""
    return f"about {seconds(elapsed / done * (total - done))} left" if done < total else ""


def _score(job: Job) -> str:
    run = record(job)
    if run is None:
        return ""
    metric: Metric = "success" if math.isfinite(run.after["success"]) else "return"
    return f"  {metric} {run.before[metric]:.2f} -> {run.after[metric]:.2f}"

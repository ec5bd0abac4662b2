"""A run's folder belongs to one process at a time."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from evotext.runner.budget import Budget

LOCK = "run.lock"


def check_new(folder: Path) -> None:
    """Raises ValueError for a folder in which a run has been recorded."""
    if (folder / "metrics.jsonl").exists() or (folder / "summary.json").exists():
        raise ValueError(
            f"hydra.run.dir: expected a folder without a run, got {folder}; name another, remove it, "
            "or go on with that run by resume="
        )


def check_inside(folder: Path) -> None:
    """Raises ValueError for a run's folder with a link that leads out of it: resuming cuts and removes files in there."""
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"resume: expected a run's folder with nothing but its own files, got a link, {path}, that leads to "
                f"{path.resolve()}; put a copy in its place"
            )


def is_completed(folder: Path, budget: Budget) -> bool:
    """Whether the folder's run has come to the end of this budget, by its own summary."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        return summary["status"] == "completed" and summary["budget"]["spent"] >= budget.limit
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within it no other process can claim the folder, until this one ends, however it ends.

    Raises ValueError if another has it, or if the folder cannot be written.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"resume: expected a run that has ended, got {folder}, in which one is going on") from None
    except OSError as error:
        raise ValueError(f"hydra.run.dir: expected a folder that can be written, got {folder}: {error}") from error
    with lock:
        yield

"""A run's folder belongs to one process at a time, and to one run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from evotext.run_folder import names


def check_new(folder: Path) -> None:
    """Raise ValueError for a folder in which a run has been recorded."""
    if (folder / names.METRICS).exists() or (folder / names.SUMMARY).exists():
        raise ValueError(
            f"hydra.run.dir: expected a folder without a run, got {folder}; name another, remove it, "
            "or go on with that run by resume="
        )


def check_inside(folder: Path) -> None:
    """Raise ValueError for a run's folder with a link that leads out of it: resuming cuts and removes files in there."""
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"resume: expected a run's folder with nothing but its own files, got a link, {path}, that leads to "
                f"{path.resolve()}; put a copy in its place"
            )


@contextmanager
def claimed(folder: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Let no other process claim the folder within the block, even if this one is killed.

    patience: seconds to wait for another one to end. Raise ValueError if another has it, or if the folder cannot be written.
    """
    lock = FileLock(folder / names.LOCK)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise ValueError(f"resume: expected a run that has ended, got {folder}, in which one is going on") from None
    except OSError as error:
        raise ValueError(f"hydra.run.dir: expected a folder that can be written, got {folder}: {error}") from error
    with lock:
        yield

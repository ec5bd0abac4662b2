"""A job of Hydra's: one run, or one of a sweep. Its configuration is checked first, and its failure recorded."""

import os
import select
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from evotext.cli.checks import check
from evotext.cli.errors import BAD_CONFIGURATION, FAILED, ConfigError
from evotext.cli.messages import explain, one_line, without_secrets
from evotext.cli.words import Root
from evotext.distributed import torchrun
from evotext.run_folder import names


class Interrupted(KeyboardInterrupt):
    """A run that was stopped from outside and has recorded everything."""


class JobFailed(Exception):
    """A job failed: one line for the user, empty where there is nothing to say, and the exit status.

    It travels between processes by pickling, whatever launcher runs the jobs, and is recorded where it arrives.
    """

    arrived: ClassVar[list["JobFailed"]] = []

    def __init__(self, line: str, status: int) -> None:
        super().__init__(line, status)
        self.line, self.status = line, status

    def __reduce__(self) -> tuple[Callable[..., "JobFailed"], tuple[str, int]]:
        return _arrived, (self.line, self.status)


def _arrived(line: str, status: int) -> JobFailed:
    failed = JobFailed(line, status)
    JobFailed.arrived.append(failed)
    return failed


def job_of(
    main: Callable[[DictConfig], Any],
    *,
    root: Root,
    failures: list[JobFailed],
    compare: Callable[[DictConfig], None] | None,
    debug: bool,
) -> Callable[[DictConfig], Any]:
    """Return `main` with its configuration checked, by `compare` too, and its failures recorded in `failures`."""
    process = os.getpid()

    @wraps(main)
    def job(config: DictConfig) -> Any:
        context = HydraConfig.get()
        multirun = context.mode == RunMode.MULTIRUN
        folder = Path(context.runtime.output_dir)
        label = f"job {context.job.num} ({' '.join(context.overrides.task)}): " if multirun else ""
        try:
            check(config, root)
            if compare:
                compare(config)
            return main(config)
        except Exception as error:
            if isinstance(error, BrokenPipeError) and reader_is_gone():
                hush()
                failures.append(JobFailed("", FAILED))  # nothing is wrong with the run
                return None
            failed = failure(error, label)
            if debug:
                traceback.print_exc()
            report = folder / names.ERROR
            if torchrun.rank() == 0:
                if failed.status != BAD_CONFIGURATION:
                    failed = _reported(failed, error, report)
                elif multirun:  # for the comparison of the sweep's runs
                    _note(failure(error), report)
                elif not config.get("resume"):
                    discard(folder)
            if multirun:
                print(f"failed: {failed.line}", flush=True)
            if os.getpid() == process:
                failures.append(failed)
            # Hydra's own sweeper stops at a job that raises; those that search have to be told so.
            if multirun and context.sweeper._target_.endswith(".BasicSweeper"):
                return failed
            if multirun:
                raise failed from None
            return None

    return job


def failure(error: Exception, label: str = "", *, mistaken: bool = False) -> JobFailed:
    """Return the line and the status for an error. mistaken: the configuration is to blame, whatever the error."""
    mistaken = mistaken or isinstance(error, ConfigError | HydraException | OmegaConfBaseException)
    line = explain(error) if mistaken else f"{type(error).__name__}: {error}"
    return JobFailed(one_line(label + line), BAD_CONFIGURATION if mistaken else FAILED)


def hush() -> None:
    """Discard what is still to be written, or Python would complain about it when it exits."""
    with suppress(OSError):  # not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def reader_is_gone() -> bool:
    """Return whether nobody reads our standard output any more; a broken pipe may also be another one."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # not a file
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _reported(failed: JobFailed, error: Exception, report: Path) -> JobFailed:
    """Write the traceback down and return the failure with its place, unless the disk is full or worse."""
    try:
        text = without_secrets("".join(traceback.format_exception(error)))
        report.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError:
        return failed
    return JobFailed(f"{failed.line} (traceback in {report})", failed.status)


def _note(failed: JobFailed, report: Path) -> None:
    """Leave a line about a job that never ran, unless the folder is that of another run."""
    with suppress(OSError):
        if not (report.parent / names.SUMMARY).exists():
            report.write_text(f"{failed.line}\n", encoding="utf-8")


def discard(folder: Path) -> None:
    """Remove a run's folder that holds nothing but its configuration."""
    with suppress(OSError):
        if [entry.name for entry in folder.iterdir()] == [names.HYDRA]:
            for file in (names.CONFIG, names.HYDRA_CONFIG, names.OVERRIDES, names.OBJECTS):
                (folder / names.HYDRA / file).unlink(missing_ok=True)
            (folder / names.HYDRA).rmdir()
            folder.rmdir()

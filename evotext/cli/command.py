"""Hydra's command line with the manners that users rely on.

A configuration mistake is one line on standard error and exit status 2, before anything expensive; `debug=true` adds the
traceback. Another failure is one line and status 1, with the traceback in the run's folder. Ctrl-C ends with status 130.
In a multirun a job that fails does not stop the others; at the end each failed job gets its line.
Of the processes that torchrun starts, the first alone has a folder and says what is wrong with a configuration.
"""

import os
import select
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import hydra
from hydra._internal.utils import get_args_parser  # to see Hydra's flags as it will; the version is pinned below 1.4
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from evotext.cli.checks import Root, check, check_choices
from evotext.cli.errors import ConfigError
from evotext.cli.messages import explain, one_line, shown, suggestion, without_secrets
from evotext.cli.replay import expand_replay, expand_resume, leave_in, quoted, refuse_changes, warn_of_changes
from evotext.cli.sweeps import expand_presets
from evotext.distributed import torchrun
from evotext.run_folder import names

BAD_CONFIGURATION, FAILED, INTERRUPTED = 2, 1, 130
# Whose own errors tell that a job's process was killed.
LAUNCHERS = ("joblib", "submitit", "ray")
# Of processes that write nothing.
NO_FOLDER = ["hydra.run.dir=.", "hydra.output_subdir=null"]


class Interrupted(KeyboardInterrupt):
    """A run that was stopped from outside and has recorded everything."""


class JobFailed(Exception):
    """A job did not succeed: one line for the user, empty where there is nothing to say, and the exit status that it asks for.

    It travels between processes by pickling, whatever launcher runs the jobs, and is put down where it arrives.
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


def run_hydra(main: Callable[[DictConfig], Any], *, config_dir: Path, config_name: str) -> NoReturn:
    """Compose the configuration from the command line, call `main` with it, once or as a multirun, and exit."""
    # Otherwise Hydra prints errors in its own way, on several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    warnings.filterwarnings("error", message="provider=.* is not available")
    debug = any(word.lstrip("+").lower() == "debug=true" for word in sys.argv[1:])
    failures: list[JobFailed] = []
    status = 0
    try:
        words, compare = expand(sys.argv[1:])
        sys.argv[1:], name = arrange(words, config_name)
        root = Root.read(config_dir / f"{name}.yaml")
        check_choices(sys.argv[1:], root)
        job = _job(main, root=root, failures=failures, compare=compare, debug=debug)
        hydra.main(version_base="1.3", config_path=str(config_dir), config_name=config_name)(job)()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:  # whoever read our output is gone: `... --help | head`
        _hush()
        status = FAILED
    except JobFailed as failed:  # a sweeper that does not go on
        failures.append(failed)
    except Exception as error:  # before any job, or because a launcher lost one
        lost = type(error).__module__.partition(".")[0] in LAUNCHERS
        failures.append(_failure(error, "", before_job=not lost))
        if debug:
            traceback.print_exc()
    failures += JobFailed.arrived
    JobFailed.arrived.clear()
    for failure in {failure.line: failure for failure in failures if failure.line}.values():
        if torchrun.rank() == 0:
            print(f"error: {failure.line}", file=sys.stderr)
        elif failure.status != BAD_CONFIGURATION:
            print(f"error: process {torchrun.rank()}: {failure.line}", file=sys.stderr)
    if failures and not status:
        status = BAD_CONFIGURATION if all(f.status == BAD_CONFIGURATION for f in failures) else FAILED
    sys.exit(status)


def expand(words: list[str]) -> tuple[list[str], Callable[[DictConfig], None] | None]:
    """The words with `replay=` and `resume=` replaced, and what the configuration is to be compared with by its job.

    After a restart by torchrun they are those of the run that it broke off. Raises ConfigError.
    """
    if torchrun.size() > 1 and {"-m", "--multirun"} & set(words):
        raise ConfigError("expected one run in all processes of torchrun, got a multirun; leave -m out")
    broken_off = torchrun.remembered_folder()
    if broken_off and torchrun.rank():  # the folder may be on another machine
        return [*words, f"resume={quoted(broken_off)}", *NO_FOLDER], None
    if broken_off:
        words = [f"resume={broken_off}", *leave_in(words)]
    words, resumed = expand_resume(words)
    words, replayed = expand_replay(words)
    words = expand_presets(words)
    compare = partial(refuse_changes, folder=resumed) if resumed else None
    if replayed:
        compare = partial(warn_of_changes, folder=replayed)
    return ([*words, *NO_FOLDER], None) if torchrun.rank() else (words, compare)


def arrange(words: list[str], config_name: str) -> tuple[list[str], str]:
    """The overrides and then the flags, which Hydra takes in no other order, and the primary configuration's name.

    Raises ConfigError for flags that Hydra does not know or that are not safe.
    """
    parser = get_args_parser()
    flags = sorted(parser._option_string_actions)

    def refuse(message: str) -> NoReturn:
        word = message.partition("unrecognized arguments: ")[2].split(" ")[0]
        if word.startswith("--") and "=" in word:
            raise ConfigError(f"expected key=value, got {shown(word)}; leave the dashes out: {word.lstrip('-')}")
        if word:
            raise ConfigError(f"expected key=value or a flag, got {shown(word)}{suggestion(word, flags)}; see --help")
        raise ConfigError(f"{one_line(message)}; see --help")

    parser.error = refuse  # type: ignore[method-assign]
    arguments = parser.parse_intermixed_args(words)
    if arguments.experimental_rerun is not None:
        raise ConfigError("expected replay=RUN_DIR to run again, got --experimental-rerun, which unpickles a file")
    if arguments.config_path is not None:
        raise ConfigError("expected --config-dir DIR to add your own configurations, got --config-path")
    overrides = list(arguments.overrides)
    for word in overrides:  # Hydra makes what its own settings name, and asks nobody
        if word.lstrip("+~").startswith("hydra") and "_target_" in word:
            raise ConfigError(
                f"expected settings of Hydra, got {shown(word)}; name your own classes in --config-dir DIR"
            )
    flags_given = list(words)
    for override in reversed(overrides):
        flags_given.reverse()
        flags_given.remove(override)
        flags_given.reverse()
    return [*overrides, *flags_given], arguments.config_name or config_name


def _job(
    main: Callable[[DictConfig], Any],
    *,
    root: Root,
    failures: list[JobFailed],
    compare: Callable[[DictConfig], None] | None,
    debug: bool,
) -> Callable[[DictConfig], Any]:
    """`main` with its configuration checked and its failures put down."""
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
            if isinstance(error, BrokenPipeError) and _reader_is_gone():
                _hush()
                failures.append(JobFailed("", FAILED))  # nothing is wrong with the run
                return None
            failure = _failure(error, label, before_job=False)
            if debug:
                traceback.print_exc()
            report = folder / names.ERROR
            if torchrun.rank() == 0:
                if failure.status != BAD_CONFIGURATION:
                    failure = _reported(failure, error, report)
                elif multirun:  # for the comparison of the sweep's runs
                    _note(_failure(error, "", before_job=False), report)
                elif not config.get("resume"):
                    _discard(folder)
            if multirun:
                print(f"failed: {failure.line}", flush=True)
            if os.getpid() == process:
                failures.append(failure)
            # Hydra's own sweeper stops at a job that raises; those that search have to be told so.
            if multirun and context.sweeper._target_.endswith(".BasicSweeper"):
                return failure
            if multirun:
                raise failure from None
            return None

    return job


def _hush() -> None:
    """What is still to be written goes nowhere, or Python would complain of it at its end."""
    with suppress(OSError):  # not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reader_is_gone() -> bool:
    """Whether nobody reads our standard output any more; a broken pipe may also be another one."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # not a file
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _failure(error: Exception, label: str, *, before_job: bool) -> JobFailed:
    mistaken = before_job or isinstance(error, ConfigError | HydraException | OmegaConfBaseException)
    line = explain(error) if mistaken else f"{type(error).__name__}: {error}"
    return JobFailed(one_line(label + line), BAD_CONFIGURATION if mistaken else FAILED)


def _reported(failure: JobFailed, error: Exception, report: Path) -> JobFailed:
    """With the traceback written down and its place named, unless the disk is full or worse."""
    try:
        text = without_secrets("".join(traceback.format_exception(error)))
        report.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError:
        return failure
    return JobFailed(f"{failure.line} (traceback in {report})", failure.status)


def _note(failure: JobFailed, report: Path) -> None:
    """Leave a line about a job that never ran, unless the folder is that of another run."""
    with suppress(OSError):
        if not (report.parent / names.SUMMARY).exists():
            report.write_text(f"{failure.line}\n", encoding="utf-8")


def _discard(folder: Path) -> None:
    """Remove a run's folder that holds nothing but its configuration."""
    with suppress(OSError):
        if [entry.name for entry in folder.iterdir()] == [names.HYDRA]:
            for file in (names.CONFIG, names.HYDRA_CONFIG, names.OVERRIDES):
                (folder / names.HYDRA / file).unlink()
            (folder / names.HYDRA).rmdir()
            folder.rmdir()

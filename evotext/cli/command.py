"""Hydra's command line with one-line errors and exit statuses that users can rely on.

A configuration mistake is one line on standard error and exit status 2, before anything expensive; `debug=true` adds the
traceback. Another failure is one line and status 1, with the traceback in the run's folder. Ctrl-C ends with status 130.
In a multirun a job that fails does not stop the others; at the end each failed job gets its line.
Only the first of the processes that torchrun starts has a folder and reports a wrong configuration.
"""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from hydra import version
from hydra._internal.utils import _run_hydra  # what hydra.main calls, with words that need not be sys.argv
from omegaconf import DictConfig

from evotext.cli.errors import BAD_CONFIGURATION, FAILED, INTERRUPTED, ConfigError
from evotext.cli.jobs import JobFailed, failure, hush, job_of
from evotext.cli.replay import begun_by, expand_replay, expand_resume, leave_in, refuse_changes, warn_of_changes
from evotext.cli.several_tasks import expand_tasks
from evotext.cli.sweeps import expand_presets
from evotext.cli.words import Root, check_overrides, parse
from evotext.distributed import torchrun
from evotext.folders import FOLDERS

# Packages whose own errors say that a job's process was killed.
LAUNCHERS = ("joblib", "submitit", "ray")
# Overrides for processes that write nothing.
NO_FOLDER = ["hydra.run.dir=.", "hydra.output_subdir=null"]


def run_hydra(
    main: Callable[[DictConfig], Any], words: Sequence[str], *, config_name: str, config_dir: Path = FOLDERS["conf"]
) -> NoReturn:
    """Compose the configuration from the words, call `main` with it, once or as a multirun, and exit."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints errors in its own way, on several lines
    version.setbase("1.3")
    debug = any(word.lstrip("+").lower() == "debug=true" for word in words)
    failures: list[JobFailed] = []
    status = 0
    try:
        expanded, compare = expand(list(words))
        arguments, parser = parse(expanded)
        root = Root.read(config_dir / f"{arguments.config_name or config_name}.yaml")
        if not arguments.shell_completion:
            check_overrides(arguments.overrides, root, multirun=arguments.multirun)
        _run_hydra(
            args=arguments,
            args_parser=parser,
            task_function=job_of(main, root=root, failures=failures, compare=compare, debug=debug),
            config_path=str(config_dir),
            config_name=config_name,
        )
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:  # whoever read our output is gone: `... --help | head`
        hush()
        status = FAILED
    except JobFailed as failed:  # a sweeper that does not go on
        failures.append(failed)
    except Exception as error:  # before any job, or because a launcher lost one
        lost = type(error).__module__.partition(".")[0] in LAUNCHERS
        failures.append(failure(error, mistaken=not lost))
        if debug:
            traceback.print_exc()
    failures += JobFailed.arrived
    JobFailed.arrived.clear()
    for one in {one.line: one for one in failures if one.line}.values():
        if torchrun.rank() == 0:
            print(f"error: {one.line}", file=sys.stderr)
        elif one.status != BAD_CONFIGURATION:
            print(f"error: process {torchrun.rank()}: {one.line}", file=sys.stderr)
    if failures and not status:
        status = BAD_CONFIGURATION if all(f.status == BAD_CONFIGURATION for f in failures) else FAILED
    sys.exit(status)


def expand(words: list[str]) -> tuple[list[str], Callable[[DictConfig], None] | None]:
    """Replace `replay=` and `resume=`; return the words and what the configuration is to be compared with by its job.

    After a restart by torchrun they are those of the run that was broken off. Raise ConfigError.
    """
    if torchrun.size() > 1 and {"-m", "--multirun"} & set(words):
        raise ConfigError("expected one run in all processes of torchrun, got a multirun; leave -m out")
    if torchrun.launched() and not torchrun.rank():  # the others do as it does, and may not see its folder
        broken_off = torchrun.remembered_folder() or begun_by(words)
        words = [f"resume={broken_off}", *leave_in(words)] if broken_off else words
    words, resumed = expand_resume(words)
    words, replayed = expand_replay(words)
    words = expand_tasks(expand_presets(words))
    compare = partial(refuse_changes, folder=resumed) if resumed else None
    if replayed:
        compare = partial(warn_of_changes, folder=replayed)
    return ([*words, *NO_FOLDER], None) if torchrun.rank() else (words, compare)

"""Hydra's command line with the manners that users rely on.

A configuration mistake is one line on standard error and exit status 2, before anything expensive; `debug=true` adds the
traceback. Another failure is one line and status 1, with the traceback in the run's folder. Ctrl-C ends with status 130.
In a multirun a job that fails says so in one line and the others go on.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from evotext.config_errors import ConfigError, check_known, check_targets, explain, one_line

BAD_CONFIGURATION, FAILED, INTERRUPTED = 2, 1, 130


class Interrupted(KeyboardInterrupt):
    """A run that was stopped from outside and has recorded everything."""


def run_hydra(main: Callable[[DictConfig], None], *, config_dir: Path, config_name: str) -> None:
    """Compose the configuration from the command line and call `main` with it, once or as a multirun; then exit."""
    # Otherwise Hydra prints errors in its own way, on several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    debug = any(word.lower() == "debug=true" for word in sys.argv[1:])
    statuses: list[int] = []
    job = _guard(main, known=_root_keys(config_dir / f"{config_name}.yaml"), statuses=statuses)
    try:
        sys.argv[1:] = expand_replay(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(config_dir), config_name=config_name)(job)()
    except KeyboardInterrupt:
        statuses.append(INTERRUPTED)
    except Exception as error:
        statuses.append(_report(error, "", None, debug))
    worst = [status for status in (INTERRUPTED, FAILED, BAD_CONFIGURATION) if status in statuses]
    sys.exit(worst[0] if worst else 0)


def expand_replay(arguments: list[str]) -> list[str]:
    """Replace `replay=RUN_DIR` by the overrides that the run was started with; what else is given comes after them.

    Raises ConfigError if the folder holds no recorded run, or in a multirun.
    """
    folders = [word.removeprefix("replay=") for word in arguments if word.startswith("replay=")]
    if not folders:
        return arguments
    rest = [word for word in arguments if not word.startswith("replay=")]
    if len(folders) > 1 or "-m" in rest or "--multirun" in rest:
        raise ConfigError("replay: expected one run's folder and no multirun; replay one run at a time")
    recorded = Path(folders[0]) / ".hydra" / "overrides.yaml"
    try:
        overrides = OmegaConf.load(recorded)
    except OSError as error:
        raise ConfigError(f"replay: expected the folder of a run, got {folders[0]!r}: no {recorded}") from error
    return [*map(str, overrides), *rest]


def _guard(
    main: Callable[[DictConfig], None], *, known: Iterable[str], statuses: list[int]
) -> Callable[[DictConfig], None]:
    """`main` with its errors reported from inside the job, so that each job of a multirun speaks for itself."""

    @wraps(main)
    def job(config: DictConfig) -> None:
        hydra_config = HydraConfig.get()
        label = f"job {hydra_config.job.num}: " if hydra_config.mode == RunMode.MULTIRUN else ""
        try:
            check_known(config, known)
            check_targets(config)
            main(config)
        except Exception as error:
            folder = Path(hydra_config.runtime.output_dir)
            status = _report(error, label, folder, bool(config.get("debug", False)))
            if "basic_launcher" not in hydra_config.launcher._target_:
                raise  # the job runs in another process, whose launcher must hear of it
            statuses.append(status)

    return job


def _report(error: Exception, label: str, folder: Path | None, debug: bool) -> int:
    """One line on standard error; the exit status. A failure that is not the configuration's leaves its traceback."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, ConfigError | HydraException | OmegaConfBaseException):
        print(f"error: {label}{explain(error)}", file=sys.stderr)
        return BAD_CONFIGURATION
    where = ""
    if folder is not None:
        report = folder / "error.txt"
        report.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        where = f" (traceback in {report})"
    print(f"error: {label}{type(error).__name__}: {one_line(str(error))}{where}", file=sys.stderr)
    return FAILED


def _root_keys(config_file: Path) -> set[str]:
    """The keys that the primary configuration has: its own and its groups."""
    config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
    groups = [next(iter(entry)) for entry in config.get("defaults", []) if isinstance(entry, dict)]
    return {key for key in config if key != "defaults"} | {group.removeprefix("optional ") for group in groups}

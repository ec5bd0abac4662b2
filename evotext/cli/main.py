"""The command `evotext COMMAND ...`, and what the scripts of a clone share with it."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from evotext import __version__
from evotext.cli.errors import BAD_CONFIGURATION, INTERRUPTED, ConfigError
from evotext.cli.messages import suggestion

COMMANDS = {
    "train": "tune a model on a task, or sweep over settings (-m)",
    "evaluate": "measure a model on held-out instances",
    "compare": "make a report of runs",
    "head-to-head": "tune each algorithm equally, run the best settings over seeds, and report",
    "benchmark": "measure speed and memory",
    "floors": "measure what a task pays without learning",
    "probe": "measure whether evolution strategies can tune a model on a task",
    "plan": "forecast the memory of a run, without loading weights",
    "play": "play a task at the terminal, or let a server play it",
    "check-env": "check that an environment keeps what training asks of it",
}


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run the command that the first word names with the others, and exit."""
    words = sys.argv[1:] if words is None else list(words)
    if words[:1] in (["-sc"], ["--shell-completion"]):
        _complete(words)
    listed = "\n".join(f"  {name:<14}{told}" for name, told in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="evotext",
        usage="evotext COMMAND ...",
        description="Tune language models on text tasks by Evolution Strategies and by RL, and compare them.",
        epilog=f"commands:\n{listed}\n\nevotext COMMAND --help tells more of each.\n"
        'In bash, eval "$(evotext -sc install=bash)" makes the tab key complete all of it; fish and zsh likewise.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"evotext {__version__}")
    parser.add_argument("command", help=argparse.SUPPRESS)
    if not words:
        parser.print_help()
        sys.exit(BAD_CONFIGURATION)
    command = parser.parse_args(words[:1]).command
    if command not in COMMANDS:
        print(
            f"error: expected a command, one of {', '.join(COMMANDS)}, got {command!r}{suggestion(command, COMMANDS)}",
            file=sys.stderr,
        )
        sys.exit(BAD_CONFIGURATION)
    run(command, words[1:])


def run(command: str, words: Sequence[str]) -> NoReturn:
    """Run a command of COMMANDS with its words, and exit. Each is a module of `evotext.commands` with a `main`."""
    exit_with(lambda: importlib.import_module(f"evotext.commands.{command.replace('-', '_')}").main(list(words)))


def exit_with(main: Callable[[], int | None]) -> NoReturn:
    """Exit with the status that `main` returns; for a mistake in the configuration with a line about it."""
    try:
        status = main()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        status = BAD_CONFIGURATION
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status)


def script() -> NoReturn:
    """Run the command that the script which was started, `scripts/COMMAND.py`, is named after."""
    run(Path(sys.argv[0]).stem.replace("_", "-"), sys.argv[1:])


def how_to(command: str) -> str:
    """Return the words that start another command in the way that this one was started."""
    started = Path(sys.argv[0])
    if started.suffix == ".py" and (beside := started.with_name(f"{command.replace('-', '_')}.py")).is_file():
        return f"python {beside}"
    return f"python -m evotext {command}" if started.name == "__main__.py" else f"evotext {command}"


def _complete(words: list[str]) -> None:
    """Give Hydra the line that is to be completed as if its command were a program, and complete the command itself."""
    line = os.environ.get("COMP_LINE", "")
    program, _, rest = line.lstrip().partition(" ")
    command, space, rest = rest.lstrip().partition(" ")
    if not line:  # the shell asks for the function that will ask us
        run("train", words)
    if not space:
        print(*(name for name in COMMANDS if name.startswith(command)))
    elif command in COMMANDS and command not in ("compare", "head-to-head", "play"):  # which have no configuration
        os.environ["COMP_LINE"] = f"{program} {rest}"
        run(command, words)
    sys.exit()

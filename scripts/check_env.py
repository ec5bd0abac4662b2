"""Check an environment of text: `python scripts/check_env.py env=gym env.id=my_tasks:mine/Descend-v0`."""

import sys
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from envs.contract import CHECKS
from evotext.command_line import run_hydra
from evotext.config_errors import build, configuration
from evotext.rollouts.task import TextTask

CONFIGURATION = Path(__file__).resolve().parent.parent / "conf"


def main(config: DictConfig) -> None:
    """Every check, a line each; exit status 1 if one has found something."""
    with configuration():
        task: TextTask = build(config, "env")
    console = Console(highlight=False, soft_wrap=True, markup=False)
    failed = 0
    for name, check in CHECKS.items():
        wrong = check(task.new, task.max_turns)
        failed += bool(wrong)
        console.print(f"{'FAILED' if wrong else 'ok':<8}{name}{': ' * bool(wrong)}{wrong}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    run_hydra(main, config_dir=CONFIGURATION, config_name="check_env")

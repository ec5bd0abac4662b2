"""Check an environment of text: `evotext check-env env=gym env.id=my_tasks:mine/Descend-v0`."""

import sys
from collections.abc import Callable
from typing import Any, NoReturn, final

import gymnasium
from omegaconf import DictConfig
from rich.console import Console

from evotext.cli.command import run_hydra
from evotext.cli.errors import configuration
from evotext.cli.targets import build
from evotext.envs import contract
from evotext.rollouts.task import TextTask, single
from evotext.rollouts.time_limit import TimeLimit, TookTooLong


def check(config: DictConfig) -> None:
    """Print every check, a line each; exit with status 1 if one has found something."""
    with configuration():
        task = single(build(config, "env"))
    console = Console(highlight=False, soft_wrap=True, markup=False)
    failed = 0
    limit = TimeLimit(task.step_seconds)
    limit.install()
    for name, check in contract.CHECKS.items():
        wrong = found(check, task, limit)
        failed += bool(wrong)
        console.print(f"{'FAILED' if wrong else 'ok':<8}{name}{': ' * bool(wrong)}{wrong}")
    limit.remove()
    if failed:
        sys.exit(1)


def found(check: Callable[[Callable[[], Any], int], str], task: TextTask, limit: TimeLimit) -> str:
    """Return what the check says is wrong, or what the environment raised."""
    try:
        # Each call of `Limited` begins the time anew; Gymnasium's check, which unwraps it, has it once for all its calls.
        with limit:
            return check(lambda: Limited(task.new(), limit), task.max_turns)
    except TookTooLong as error:
        return f"the environment took {error}"
    except (Exception, SystemExit) as error:
        return " ".join(f"the environment raised {type(error).__name__}: {error}".split())[:200]


@final
class Limited(gymnasium.Wrapper[str, str, str, str]):
    """Every call of the environment within the time that a run would give it."""

    def __init__(self, env: gymnasium.Env[str, str], limit: TimeLimit) -> None:
        super().__init__(env)
        self._limit = limit

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Pass on the environment's own."""
        with self._limit:
            return self.env.reset(seed=seed, options=options)

    def step(self, action: str) -> Any:
        """Pass on the environment's own."""
        with self._limit:
            return self.env.step(action)


def main(words: list[str]) -> NoReturn:
    """Run the command line."""
    run_hydra(check, words, config_name="check_env")

"""A text task: a Gymnasium environment of strings, with the limits of an episode."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import gymnasium

from evotext.types import Split
from evotext.validation import NonNegativeInt, PositiveFloat, PositiveInt, checked


class Task(Protocol):
    """The source of episodes: a task, or several (`evotext.rollouts.mixture`), each instance belonging to one of them."""

    @property
    def name(self) -> str:
        """The name in reports."""

    @property
    def max_new_tokens(self) -> int:
        """The longest answer of one turn, end token included."""

    @property
    def max_turns(self) -> int:
        """The longest episode."""

    @property
    def success_return(self) -> float | None:
        """The return that counts as success; None where it is not known, or not one."""

    @property
    def knows_success(self) -> bool:
        """Whether every episode succeeds or not."""

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those that `reset` knows."""

    @property
    def parts(self) -> Sequence["TextTask"]:
        """The tasks that it is made of."""

    @property
    def shares(self) -> Mapping[str, float]:
        """The share of the instances that belong to each task, by its name; empty for a single task."""

    @property
    def measured(self) -> "Task":
        """The task that measurements are of."""

    def of(self, instances: Sequence[int]) -> list["TextTask"]:
        """Return the task of each instance (environment seed)."""


def single(task: Task) -> "TextTask":
    """Return the only task there is. Raise ValueError if there are several."""
    if task.shares:
        raise ValueError(f"env: expected one task, got several, {task.name}; name one of them")
    return task.parts[0]


class TextTask:
    """Makes environments of one kind.

    name: what reports call the task.
    id: a Gymnasium id, `module:Namespace/Name-vN` to import the module that registers it.
    max_new_tokens: longest answer of one turn, end token included.
    max_turns: an episode is truncated after so many turns.
    success_return: an episode with at least this return counts as solved; None takes the id's `reward_threshold`, and
    without one the task knows no success: its return is all there is to report.
    strict: an environment that raises or returns something other than text ends the run instead of its own episode.
    step_seconds: an environment that takes longer for one reset or step has failed (`time_limit`); None: no limit.
    workers: environments that step at the same time, in threads (`threads`); with 0 or 1 they take turns.
    wrappers: put around each environment, the first one innermost, e.g. those of `envs.wrappers`, under any names.
    options: go to `gymnasium.make`.
    Raises ValueError for an unknown id, options that the environment rejects, and spaces that are not text.
    """

    @checked
    def __init__(
        self,
        *,
        name: str,
        id: str,
        max_new_tokens: PositiveInt,
        max_turns: PositiveInt,
        success_return: float | None,
        strict: bool,
        step_seconds: PositiveFloat | None,
        workers: NonNegativeInt,
        wrappers: Mapping[str, Callable[[Any], Any]] | None = None,
        **options: Any,
    ) -> None:
        self.name, self.id, self.options = name, id, options
        self.max_new_tokens, self.max_turns, self.strict = max_new_tokens, max_turns, strict
        self.step_seconds, self.workers = step_seconds, workers
        self._wrappers = tuple((wrappers or {}).values())
        self._pool: list[gymnasium.Env[str, str]] = [self.new()]
        spec = self._pool[0].spec
        self.splits: tuple[Split, ...] = tuple(self._pool[0].metadata.get("splits", ("train", "test")))
        """Those that `reset` knows, by its `metadata["splits"]`. Validation instances of others index the training split."""
        self.success_return = spec.reward_threshold if success_return is None and spec else success_return
        self.knows_success = self.success_return is not None
        # A task is the only part of itself (`Task`).
        self.parts: tuple[TextTask, ...] = (self,)
        self.shares: Mapping[str, float] = MappingProxyType({})
        self.measured = self

    def of(self, instances: Sequence[int]) -> list["TextTask"]:
        """Return this task for each instance."""
        return [self] * len(instances)

    def environments(self, count: int) -> list[gymnasium.Env[str, str]]:
        """Return `count` environments, made once and used again: each episode resets its own."""
        while len(self._pool) < count:
            self._pool.append(self.new())
        return self._pool[:count]

    def replace(self, env: gymnasium.Env[str, str]) -> None:
        """Put a new environment in the place of one that was interrupted: nobody knows what state it is in."""
        self._pool[self._pool.index(env)] = self.new()

    def close(self) -> None:
        """Close every environment."""
        for env in self._pool:
            env.close()
        self._pool.clear()

    def new(self) -> gymnasium.Env[str, str]:
        """Make an environment."""
        try:
            env = gymnasium.make(self.id, disable_env_checker=True, **self.options)
        except (gymnasium.error.Error, ImportError, AttributeError) as error:
            raise ValueError(f"id: cannot make {self.id!r}: {error}") from error
        except TypeError as error:
            raise ValueError(f"env: {self.id} does not accept these options: {error}") from error
        except SystemExit as error:
            raise ValueError(f"id: cannot make {self.id!r}: it called sys.exit({error})") from error
        for wrap in self._wrappers:
            env = wrap(env)
        return env

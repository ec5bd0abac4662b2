"""Calls of environments, which are foreign code: whatever goes wrong in them becomes one kind of error."""

import math
import reprlib
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import gymnasium
import torch

from evotext.rollouts.time_limit import TimeLimit, TookTooLong
from evotext.types import Ending, Fault

T = TypeVar("T")
Call = Literal["reset", "step"]
LARGEST_REWARD = torch.finfo(torch.float32).max
"""Rewards are kept in float32."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The reply of `reset`."""

    observation: str
    instructions: str
    """From `info`; empty if there are none."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """The reply of `step`."""

    observation: str
    """Empty once the task has ended."""
    reward: float
    terminated: bool
    truncated: bool


# Calls that may hang at first before we stop waiting for an environment.
MOST_HANGS = 3


class BrokenEnvironment(RuntimeError):
    """An environment fails in every call."""


class EnvironmentFault(Exception):
    """An environment failed. `cause` is what it raised, or our own complaint about what it returned."""

    def __init__(self, kind: Ending, call: Call, cause: BaseException) -> None:
        super().__init__(_named(cause) if kind in (Ending.RAISED, Ending.EXITED) else str(cause))
        self.kind, self.call, self.cause = kind, call, cause

    def record(self, instance: int) -> Fault:
        """Return what is kept of it when the episode is over. instance: the episode's environment seed."""
        raised = self.kind in (Ending.RAISED, Ending.EXITED, Ending.TIME_LIMIT)
        lines = traceback.format_exception(self.cause) if raised else []
        return Fault(
            kind=self.kind, call=self.call, instance=instance, error=str(self), traceback="".join(lines).rstrip()
        )


class EnvironmentCalls:
    """Calls `reset` and `step`. Both raise EnvironmentFault and nothing else, but for the user's KeyboardInterrupt.

    Raises BrokenEnvironment if the first few calls of one of them all took too long.
    seconds: what one call may take; None sets no limit. Use as a context manager, within which the limit holds.
    """

    def __init__(self, seconds: float | None) -> None:
        self._limit = TimeLimit(seconds)
        self._came_back: set[Call] = set()
        self._hung = 0

    def __enter__(self) -> "EnvironmentCalls":
        self._limit.install()
        return self

    def __exit__(self, *_: object) -> None:
        self._limit.remove()

    def reset(self, env: gymnasium.Env[str, str], *, seed: int, split: str) -> Opening:
        """Begin an episode."""
        reply = self._made("reset", lambda: env.reset(seed=seed, options={"split": split}))
        return _read("reset", _opening, reply)

    def step(self, env: gymnasium.Env[str, str], answer: str) -> Step:
        """Answer the last observation."""
        reply = self._made("step", lambda: env.step(answer))
        return _read("step", _step, reply)

    def _made(self, call: Call, made: Callable[[], object]) -> object:
        try:
            with self._limit:
                reply = made()
        except KeyboardInterrupt:
            raise
        except TookTooLong as error:
            self._hung += call not in self._came_back
            if self._hung >= MOST_HANGS:
                raise BrokenEnvironment(f"each of the first {MOST_HANGS} calls of {call} took {error}") from error
            raise EnvironmentFault(Ending.TIME_LIMIT, call, error) from error
        except BaseException as error:  # some libraries derive from it what `except Exception` should not catch
            self._came_back.add(call)
            kind = Ending.EXITED if isinstance(error, SystemExit) else Ending.RAISED
            raise EnvironmentFault(kind, call, error) from error
        self._came_back.add(call)
        return reply


class _BadReply(TypeError):
    """A reply other than Gymnasium's tuple with a text."""


class _BadReward(ValueError):
    """A reward other than a finite number."""


def _read(call: Call, read: Callable[[Any], T], reply: object) -> T:
    try:
        return read(reply)
    except _BadReward as error:
        raise EnvironmentFault(Ending.BAD_REWARD, call, error) from error
    except Exception as error:  # our complaint, or what a foreign object raises when it is looked at
        raise EnvironmentFault(Ending.BAD_REPLY, call, error) from error


def _opening(reply: Any) -> Opening:
    if not isinstance(reply, tuple | list) or len(reply) != 2 or not isinstance(reply[1], Mapping):
        raise _BadReply(f"expected (observation, info) from reset, got {_shown(reply)}")
    return Opening(observation=_text(reply[0]), instructions=_text(str(reply[1].get("instructions", ""))))


def _step(reply: Any) -> Step:
    if not isinstance(reply, tuple | list) or len(reply) != 5:
        raise _BadReply(f"expected (observation, reward, terminated, truncated, info) from step, got {_shown(reply)}")
    observation, reward, terminated, truncated, _ = reply
    over = _flag("terminated", terminated), _flag("truncated", truncated)
    return Step(
        observation="" if over[0] else _text(observation),
        reward=_number(reward),
        terminated=over[0],
        truncated=over[1],
    )


def _text(observation: object) -> str:
    if not isinstance(observation, str):
        raise _BadReply(f"expected a text as the observation, got {_shown(observation)}")
    if not observation.isascii():
        try:
            observation.encode()
        except UnicodeEncodeError as error:  # no tokenizer takes them
            raise _BadReply(f"expected an observation without lone surrogates, got {_shown(observation)}") from error
    return observation


def _flag(name: str, value: object) -> bool:
    try:
        if value is None or isinstance(value, str | bytes):
            raise TypeError
        return bool(value)
    except Exception as error:  # an array of several has no truth value
        raise _BadReply(f"expected a boolean as {name}, got {_shown(value)}") from error


def _number(reward: Any) -> float:
    try:
        if isinstance(reward, str | bytes):  # which float() would read
            raise TypeError
        value = float(reward)
    except Exception as error:  # whatever its type raises
        raise _BadReward(f"expected a number as the reward, got {_shown(reward)}") from error
    if not math.isfinite(value) or abs(value) > LARGEST_REWARD:
        raise _BadReward(f"expected a finite reward, at most {LARGEST_REWARD:.3g}, got {value}")
    return value


def _shown(value: object) -> str:
    """Return the value in short, with its type where that does not show, whatever its `__repr__` raises."""
    try:
        text = reprlib.repr(value)
    except Exception:
        text = "a value"
    return "None" if value is None else f"{text} ({type(value).__name__})"


def _named(error: BaseException) -> str:
    """Return the error's type and message, whatever its `__str__` raises."""
    try:
        text = str(error)
    except Exception:
        text = "an error that cannot be written out"
    return f"{type(error).__name__}: {text}"

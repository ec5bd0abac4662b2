"""Calls of environments, which are foreign code: whatever goes wrong in them becomes one kind of error."""

import math
import reprlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeVar

import gymnasium
import torch

from evotext.models.tool_calls import RESULTS, Tools, read_tools
from evotext.protocols import ScoresInBatches
from evotext.rollouts.reward_parts import BATCH, read_parts
from evotext.rollouts.threads import Attempt, Threads, attempted
from evotext.rollouts.time_limit import TimeLimit, TookTooLong
from evotext.types import Ending, Fault

T = TypeVar("T")
Call = Literal["reset", "step", "score_batch"]
Environment = gymnasium.Env[str, str]
LARGEST_REWARD = torch.finfo(torch.float32).max
"""Rewards are kept in float32."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The reply of `reset`."""

    observation: str
    instructions: str
    """From `info`; empty if there are none."""
    tools: Tools | None = None
    """From `info`; None for a task without any."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """The reply of `step`."""

    observation: str
    """Empty once the task has ended."""
    reward: float
    terminated: bool
    truncated: bool
    parts: Mapping[str, float] = field(default_factory=dict)
    """Parts of the reward by name; empty if it has none."""
    results: tuple[str, ...] = ()
    """Results of the tools that the answer called, which the observation tells, too."""


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


Opened = Opening | EnvironmentFault
Stepped = Step | EnvironmentFault


class EnvironmentCalls:
    """Calls of many environments. Their outcomes come in the order of the environments, and a fault is one of them.

    Raises BrokenEnvironment if the first few calls of one kind all took too long, and KeyboardInterrupt if the user's comes.
    seconds: what one call may take; None sets no limit. workers: how many calls run at the same time, in threads; with 0 or 1
    they come one after another, in the thread that asks. Use as a context manager, within which the limit holds.
    """

    def __init__(self, seconds: float | None, workers: int = 0) -> None:
        self._limit = TimeLimit(seconds)
        self._threads = Threads(workers, seconds) if workers > 1 else None
        self._came_back: set[Call] = set()
        self._hung = 0

    def __enter__(self) -> "EnvironmentCalls":
        if self._threads is None:
            self._limit.install()
        return self

    def __exit__(self, *_: object) -> None:
        self._limit.remove()

    def reset(self, environments: Sequence[Environment], *, seeds: Sequence[int], split: str) -> Iterator[Opened]:
        """Begin an episode of each."""
        calls = [
            partial(env.reset, seed=seed, options={"split": split})
            for env, seed in zip(environments, seeds, strict=True)
        ]
        return (_read("reset", _opening, reply) for reply in self._replies("reset", calls))

    def step(self, environments: Sequence[Environment], answers: Sequence[str]) -> Iterator[Stepped]:
        """Answer each one's last observation. What a batch is paid at once (`ScoresInBatches`) is in the rewards."""
        calls = [partial(env.step, answer) for env, answer in zip(environments, answers, strict=True)]
        steps = (_read("step", _step, reply) for reply in self._replies("step", calls))
        scorer = environments[0].unwrapped
        return self._scored(scorer, environments, list(steps)) if isinstance(scorer, ScoresInBatches) else steps

    def _scored(
        self, scorer: ScoresInBatches, environments: Sequence[Environment], steps: Sequence[Stepped]
    ) -> Iterator[Stepped]:
        healthy = [env.unwrapped for env, step in zip(environments, steps, strict=True) if isinstance(step, Step)]
        calls = [partial(scorer.score_batch, healthy)] if healthy else []
        scores = (score for reply in self._replies("score_batch", calls) for score in _scores(reply, len(healthy)))
        for step in steps:
            yield step if isinstance(step, EnvironmentFault) else _with_score(step, next(scores))

    def _replies(self, kind: Call, calls: Sequence[Callable[[], object]]) -> Iterator["Attempt | EnvironmentFault"]:
        """Make the calls and yield what each returned, or how it failed."""
        attempts = map(self._attempted, calls) if self._threads is None else self._threads.run(calls)
        for attempt in attempts:
            if isinstance(attempt.error, KeyboardInterrupt):
                raise attempt.error
            if isinstance(attempt.error, TookTooLong):
                self._hung += kind not in self._came_back
                if self._hung >= MOST_HANGS:
                    raise BrokenEnvironment(
                        f"each of the first {MOST_HANGS} calls of {kind} took {attempt.error}"
                    ) from attempt.error
                yield EnvironmentFault(Ending.TIME_LIMIT, kind, attempt.error)
                continue
            self._came_back.add(kind)
            if attempt.error is None:
                yield attempt
            else:  # some libraries derive from BaseException what `except Exception` should not catch
                ending = Ending.EXITED if isinstance(attempt.error, SystemExit) else Ending.RAISED
                yield EnvironmentFault(ending, kind, attempt.error)

    def _attempted(self, call: Callable[[], object]) -> Attempt:
        # Around the limit, which may ring when the call has just returned.
        return attempted(partial(self._limited, call))

    def _limited(self, call: Callable[[], object]) -> object:
        with self._limit:
            return call()


def scored_alone(env: Environment) -> float:
    """Return what `score_batch` pays the environment as the only one of a batch; 0 if it has none. Raise what it raises."""
    alone = env.unwrapped
    if not isinstance(alone, ScoresInBatches):
        return 0.0
    (score,) = alone.score_batch([alone])
    return float(score)


class _BadReply(TypeError):
    """A reply other than Gymnasium's tuple with a text."""


class _BadReward(ValueError):
    """A reward other than a finite number."""


def _read(call: Call, read: Callable[[Any], T], attempt: Attempt | EnvironmentFault) -> T | EnvironmentFault:
    if isinstance(attempt, EnvironmentFault):
        return attempt
    try:
        return read(attempt.reply)
    except _BadReward as error:
        return EnvironmentFault(Ending.BAD_REWARD, call, error)
    except Exception as error:  # our complaint, or what a foreign object raises when it is looked at
        return EnvironmentFault(Ending.BAD_REPLY, call, error)


def _scores(attempt: Attempt | EnvironmentFault, count: int) -> list[float | EnvironmentFault]:
    """Return one for each environment; a reply that is wrong as a whole is a fault of each."""
    found = _read("score_batch", partial(_listed, count=count), attempt)
    if isinstance(found, EnvironmentFault):
        return [found] * count
    return [_read("score_batch", _number, Attempt(reply=score)) for score in found]


def _with_score(step: Step, score: float | EnvironmentFault) -> Stepped:
    """Add the score to the step's reward; return a fault where their sum is no reward."""
    if isinstance(score, EnvironmentFault):
        return score
    total = _read("score_batch", _number, Attempt(reply=step.reward + score))
    if isinstance(total, EnvironmentFault):
        return total
    return replace(step, reward=total, parts={**step.parts, BATCH: score} if step.parts else {})


def _listed(reply: Any, *, count: int) -> list[object]:
    found = list(reply)
    if len(found) != count:
        raise _BadReply(f"expected {count} rewards from score_batch, one for each environment, got {len(found)}")
    return found


def _opening(reply: Any) -> Opening:
    if not isinstance(reply, tuple | list) or len(reply) != 2 or not isinstance(reply[1], Mapping):
        raise _BadReply(f"expected (observation, info) from reset, got {_shown(reply)}")
    tools = read_tools(reply[1])
    if tools is not None:
        _text(tools.functions + tools.instructions)
    return Opening(observation=_text(reply[0]), instructions=_text(str(reply[1].get("instructions", ""))), tools=tools)


def _step(reply: Any) -> Step:
    if not isinstance(reply, tuple | list) or len(reply) != 5:
        raise _BadReply(f"expected (observation, reward, terminated, truncated, info) from step, got {_shown(reply)}")
    observation, reward, terminated, truncated, info = reply
    over = _flag("terminated", terminated), _flag("truncated", truncated)
    return Step(
        observation="" if over[0] else _text(observation),
        reward=_number(reward),
        terminated=over[0],
        truncated=over[1],
        parts=_parts(info),
        results=_results(info),
    )


def _parts(info: object) -> dict[str, float]:
    try:
        return read_parts(info)
    except Exception as error:  # ours, or of a foreign mapping
        raise (_BadReward if isinstance(error, ValueError) else _BadReply)(str(error)) from error


def _results(info: object) -> tuple[str, ...]:
    results = info.get(RESULTS, ()) if isinstance(info, Mapping) else ()
    if not isinstance(results, list | tuple):
        raise _BadReply(f"expected a list of texts as info[{RESULTS!r}], got {_shown(results)}")
    return tuple(map(_text, results))


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

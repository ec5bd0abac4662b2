"""Environments of the package verifiers (Brown 2025): rows, turns and rubric are its own, and the policy is whoever steps."""

import inspect
import json
import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

import gymnasium

from evotext.library import optional
from evotext.rollouts.reward_parts import KEY
from evotext.validation import checked

from ..spaces import FreeText
from ..text_env import RenderMode, chosen_split
from .rows import Row, shared_out
from .verifiers_episode import Client, Episode, client_class

JUDGES = frozenset({"judge", "judge_client"})
"""Parameters of a rubric's functions that hold a model of its own."""


@final
class Verifiers(gymnasium.Env[str, str]):
    """Description:
        An episode of an environment that verifiers loads, single-turn or multi-turn.

    Observation Space:
        `FreeText`. The user's messages of a row's prompt, and then what the environment answers. Several messages stand below
        each other with their roles.

    Action Space:
        `FreeText`. The assistant's message.

    Rewards:
        The rubric's, at the end, in parts by its functions' names. A function that raises counts 0, as in verifiers.

    Episode End:
        Terminates when the environment's own conditions say so.

    Arguments:
        `env_id`: a name that `verifiers.load_environment` takes, that is, a module with a function `load_environment`.
        `env_args`: arguments of that function.
        Raises ImportError without verifiers, and ValueError for an environment that cannot be loaded, is of another kind, has
        tools, or whose rewards ask a judge model or compare the answers of a group.

    Instances:
        A seed draws a row of its split, with replacement. Rows that are alike are in one split. Rows of the environment's
        evaluation set are held out; without one, a fifth of all. A tenth is for validation. System messages are the
        instructions. Whatever else the environment draws is its own affair.

    Version History:
        v0: first version.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["ansi"],
        "render_fps": 1,
        "splits": ("train", "validation", "test"),
    }
    observation_space: gymnasium.Space[str]
    action_space: gymnasium.Space[str]

    @checked
    def __init__(
        self, *, env_id: str, env_args: Mapping[str, Any] | None = None, render_mode: RenderMode = None
    ) -> None:
        self._loaded = _loaded(env_id, json.dumps(dict(env_args or {}), sort_keys=True))
        self.observation_space = self.action_space = FreeText()
        self.render_mode = render_mode
        self._episode: Episode | None = None
        self._said = "no episode has begun"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode; the same seed and split give the same row."""
        super().reset(seed=seed)
        validation = bool(options) and options == {"split": "validation"}
        rows = self._loaded.splits["validation" if validation else chosen_split(options)]
        row = rows[int(self.np_random.integers(len(rows)))]
        self.close()
        self._episode = Episode(self._loaded.environment, self._loaded.client, row)
        messages = self._episode.next(None)
        if messages is None:
            self._result()
            raise ValueError("env_id: expected an environment that asks for an answer, got one that ends before")
        self._said = _in_words([message for message in messages if message.role != "system"])
        instructions = "\n\n".join(_text(message) for message in messages if message.role == "system")
        return self._said, {"instructions": instructions}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Answer."""
        if self._episode is None:
            raise gymnasium.error.ResetNeeded("expected a running episode: call reset() first")
        messages = self._episode.next(action.encode(errors="replace").decode())  # JSON has no lone surrogates
        if messages is not None:
            self._said = _in_words(messages)
            return self._said, 0.0, False, False, {}
        result = self._result()
        reward, parts = float(result["reward"]), self._loaded.parts(result["metrics"])
        adds_up = parts and abs(sum(parts.values()) - reward) <= 1e-6 * max(1.0, abs(reward))
        return "", reward, True, False, {KEY: parts} if adds_up else {}

    def render(self) -> str | None:
        """Return what the environment said last, with `render_mode="ansi"`."""
        return None if self.render_mode is None else self._said

    def close(self) -> None:
        """Drop a running episode."""
        if self._episode is not None:
            self._episode.drop()
            self._episode = None

    def _result(self) -> Mapping[str, Any]:
        """Return the record of the episode that has ended. Raise what it raised."""
        episode, self._episode = self._episode, None
        assert episode is not None
        (result,) = episode.ended.result()
        if result.get("error"):
            raise RuntimeError(f"verifiers: {result['error']}")
        return dict(result)


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """An environment of verifiers, for all episodes."""

    environment: Any
    client: Client
    splits: Mapping[str, Sequence[Row]]
    weights: Mapping[str, float]
    """Of the rubric's functions, by name."""

    def parts(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the parts of a reward, by names that may be logged."""
        weighed = {name: weight * metrics[name] for name, weight in self.weights.items() if name in metrics}
        return {re.sub(r"[^\w.-]", "_", name, flags=re.ASCII): float(value) for name, value in weighed.items()}


@lru_cache(maxsize=8)
def _loaded(env_id: str, env_args: str) -> _Loaded:
    verifiers = optional(
        "verifiers.legacy", "verifiers"
    )  # the API of its SingleTurnEnv and MultiTurnEnv, which 0.4 lacks
    try:
        with _own_signals():
            environment = verifiers.load_environment(env_id, **json.loads(env_args))
            rows, held_out = environment.build_dataset(), environment.build_eval_dataset()
    except Exception as error:  # a missing module or key, wrong arguments, no network for its data
        line = " ".join(f"{error} ({error.__cause__})".split())[:400]
        raise ValueError(f"env_id: verifiers cannot load {env_id!r}: {line}") from error
    _check(verifiers, environment)
    rows, held_out = (None if data is None else data.to_list() for data in (rows, held_out))
    if rows is None:
        rows, held_out = held_out, None
    return _Loaded(
        environment=environment,
        client=client_class(verifiers),
        splits=shared_out(rows, held_out, _content, "env_id"),
        weights={
            function.__name__: weight
            for rubric in _rubrics(verifiers, environment.rubric)
            for function, weight in zip(rubric.funcs, rubric.weights, strict=True)
            if weight
        },
    )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Undo what verifiers does to Ctrl-C and termination, which end a generation here."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _check(verifiers: Any, environment: Any) -> None:
    """Raise ValueError for an environment that cannot be stepped and scored here."""
    if not isinstance(environment, verifiers.MultiTurnEnv):
        raise ValueError(
            f"env_id: expected a SingleTurnEnv or MultiTurnEnv of verifiers, got {type(environment).__name__}; "
            "others run their episodes themselves"
        )
    if environment.tool_defs:
        raise ValueError(
            "env_id: expected an environment without tools, got one that has some; env.wrappers can add ours"
        )
    if environment.requires_group_rollouts:
        raise ValueError("env_id: expected rewards of single episodes, got some that compare a group's answers")
    for rubric in _rubrics(verifiers, environment.rubric):
        names = [f.__name__ for f in rubric.funcs if JUDGES & set(inspect.signature(f).parameters)]
        if names or isinstance(rubric, verifiers.JudgeRubric):
            raise ValueError(
                f"env_id: expected rewards that code computes, got {', '.join(names) or type(rubric).__name__}, which asks "
                "a judge model; choose another environment"
            )


def _rubrics(verifiers: Any, rubric: Any) -> list[Any]:
    if isinstance(rubric, verifiers.RubricGroup):
        return [one for inner in rubric.rubrics for one in _rubrics(verifiers, inner)]
    return [rubric]


def _content(row: Row) -> str:
    """Return what makes two rows the same."""
    return json.dumps({key: value for key, value in row.items() if key != "example_id"}, sort_keys=True, default=str)


def _in_words(messages: Sequence[Any]) -> str:
    if len(messages) == 1:
        return _text(messages[0])
    return "\n\n".join(f"{message.role}: {_text(message)}" for message in messages)


def _text(message: Any) -> str:
    """Return a message's text. Raise ValueError for pictures and sound."""
    if isinstance(message.content, str):
        return message.content
    texts = [part["text"] for part in message.content or () if part["type"] == "text"]
    if len(texts) != len(message.content or ()):
        raise ValueError("env_id: expected messages of text, got other content")
    return "\n".join(texts)

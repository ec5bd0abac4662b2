"""Environments that a caller gives as objects: a class, an instance, or a function that pays for the answers to prompts."""

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from evotext.cli.errors import ConfigError, configuration
from evotext.cli.messages import one_line
from evotext.cli.targets import locate

Env = gymnasium.Env[Any, Any]
Reward = Callable[[str, str], float | Mapping[str, float]]
"""Pays for the answer to a prompt: a number, or named parts that add up to it."""


def of_class(kind: type[Env]) -> EnvSpec:
    """Return the specification of a class whose constructor needs no arguments."""
    return _spec(kind.__name__, kind, None)


def of_instance(env: Env) -> EnvSpec:
    """Return the specification of copies of this environment. Raise ConfigError for one that cannot be copied."""
    try:
        original = copy.deepcopy(env)  # whatever becomes of the caller's
    except Exception as error:  # whatever its parts raise
        raise ConfigError(
            f"env: expected an environment that copy.deepcopy can copy, got a {type(env.unwrapped).__name__} "
            f"({one_line(str(error))}); give its class or its id"
        ) from error
    threshold = env.spec.reward_threshold if env.spec else None
    # The class's own name: an id may be that of a version, which a copy with other arguments is not.
    return _spec(type(env.unwrapped).__name__, lambda: copy.deepcopy(original), threshold)


def of_reward(reward: Reward, prompts: Sequence[str]) -> EnvSpec:
    """Return the specification of a task of these prompts, each answered once. Raise ConfigError for too few prompts."""
    if isinstance(prompts, str):
        raise ConfigError("prompts: expected a list of texts, got one text")
    with configuration():
        splits = locate("evotext.envs.prompts.divided", "env")(list(prompts))
    kind = locate("evotext.envs.prompts.Prompts", "env")
    name = str(getattr(reward, "__name__", type(reward).__name__))
    return _spec(name, lambda: kind(splits, reward), None)  # type: ignore[arg-type,return-value]


@contextmanager
def registered(spec: EnvSpec | None) -> Iterator[None]:
    """Let Gymnasium know the specification, if there is one, within the block."""
    if spec is None:
        yield
        return
    gymnasium.registry[spec.id] = spec
    try:
        yield
    finally:
        del gymnasium.registry[spec.id]


def _spec(name: str, make: Callable[..., Env], reward_threshold: float | None) -> EnvSpec:
    """Return a specification that holds nothing but functions, since Gymnasium copies it again and again."""
    return EnvSpec(
        id=f"given/{re.sub(r'[^A-Za-z0-9_]', '', name) or 'env'}",
        entry_point=lambda **options: make(**options),
        reward_threshold=reward_threshold,
        order_enforce=False,
        disable_env_checker=True,
    )

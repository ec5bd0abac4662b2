"""Gymnasium environments with discrete actions and a text rendering, played in text: FrozenLake-v1, Taxi-v3 and others."""

import re
from collections.abc import Sequence
from typing import Any, final

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete

from evotext.validation import NonNegativeFloat, checked

from ..spaces import FreeText
from ..text_env import WHITE_SPACE

# Colours of a terminal. Where they mark a letter, it is put in brackets: else the player's place would be lost.
_MARKED = re.compile(r"\x1b\[[0-9;]*m([^\x1b]*)\x1b\[0m")
# Beside an episode's seed in the key of its random actions, lest they repeat what the environment draws from that seed.
_NONSENSE = 1
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@checked
def as_text(
    env: gymnasium.Env[Any, Any], *, actions: Sequence[str] | None, nonsense_cost: NonNegativeFloat
) -> gymnasium.Env[str, str]:
    """Return the environment as one of text: itself if its spaces are text, else by `DiscreteAsText`.

    actions: names of a discrete environment's actions, in order; None names them 0, 1, 2, ...
    nonsense_cost: as in `DiscreteAsText`.
    Raise ValueError for other spaces, a missing text rendering and a wrong number of names.
    """
    if _is_text(env.observation_space) and _is_text(env.action_space):
        if actions is not None:
            raise ValueError("actions: expected null for an environment of texts, got names; leave them out")
        return env
    if not isinstance(env.action_space, Discrete):
        raise ValueError(
            f"id: expected an environment of texts or with discrete actions, got the action space {env.action_space}"
        )
    if env.render_mode != "ansi":
        raise ValueError(
            "id: expected a text rendering of an environment that is not of texts: add +env.render_mode=ansi"
        )
    names = list(map(str, range(env.action_space.n))) if actions is None else list(actions)
    if len(names) != env.action_space.n or len(set(names)) != len(names):
        raise ValueError(f"actions: expected {env.action_space.n} different names, got {names}")
    return DiscreteAsText(env, names, nonsense_cost)


@final
class DiscreteAsText(gymnasium.Wrapper[str, str, Any, Any]):
    """Shows an environment by its text rendering and takes the names of its actions.

    A text that names none of them is nonsense. A random action is played in its place and `nonsense_cost` taken off the
    reward: whatever play costs, nonsense costs more than playing at random. Ending the episode, or leaving everything as it is,
    would not do, for where each step costs something that is better than the best play. The random actions follow from the
    seed of the episode, and leave the environment's own generator alone.

    Version History:
        v1: nonsense plays at random and costs.
        v0: nonsense ended the episode with a reward of 0.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], actions: Sequence[str], nonsense_cost: float) -> None:
        super().__init__(env)
        assert isinstance(env.action_space, Discrete), "as_text has seen to it"
        first = int(env.action_space.start)
        self.observation_space = self.action_space = FreeText()
        self._actions = {name: first + i for i, name in enumerate(actions)}
        self._cost, self._rng = nonsense_cost, np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Show the beginning."""
        _, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self._rng = np.random.default_rng([seed, _NONSENSE])
        rules = (
            f"Answer each picture with one of: {', '.join(self._actions)}. "
            f"Anything else plays one of them at random and costs {self._cost:g}."
        )
        return self._picture(), {"instructions": rules, **info}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Carry out the named action, or a random one."""
        number = self._actions.get(action.strip(WHITE_SPACE))
        cost = 0.0 if number is not None else self._cost
        if number is None:
            number = int(self._rng.choice(list(self._actions.values())))
        inner: gymnasium.Env[Any, Any] = self.env
        _, reward, terminated, truncated, info = inner.step(number)
        return self._picture(), float(reward) - cost, bool(terminated), bool(truncated), info

    def _picture(self) -> str:
        drawn = self.env.render()
        if not isinstance(drawn, str):
            raise TypeError(f"expected a text from render(), got {type(drawn).__name__}")
        return _COLOUR.sub("", _MARKED.sub(r"[\1]", drawn)).strip("\n")


def _is_text(space: gymnasium.Space[Any]) -> bool:
    return isinstance(space, FreeText | gymnasium.spaces.Text)

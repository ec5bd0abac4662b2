"""Gymnasium wrappers for environments of text: when rewards are paid, how long answers are, where in them the answer is.

In a configuration they stand by any names, the innermost first; `env.max_turns` limits the turns:

    '+env.wrappers.late={_target_: envs.wrappers.DelayedReward, _partial_: true, turns: 3}'
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Literal, SupportsFloat, final

import gymnasium
from gymnasium.utils import RecordConstructorArgs

from evotext.rollouts.reward_parts import KEY, added, read_parts
from evotext.validation import PositiveInt, checked

from . import extraction

TextEnvironment = gymnasium.Env[str, str]
Step = tuple[str, SupportsFloat, bool, bool, dict[str, Any]]
Paid = tuple[float, Mapping[str, float]]
"""A reward and its named parts."""

RULES: Mapping[str, Callable[[str], str | None]] = {
    "mark": partial(extraction.after_mark, mark="####"),
    "tags": partial(extraction.in_tags, tag="answer"),
    "boxed": extraction.boxed,
    "last_line": extraction.last_line,
}


def _together(
    paid: Collection[Paid], terminated: bool, truncated: bool, info: Mapping[str, Any]
) -> tuple[float, bool, bool, dict[str, Any]]:
    """Return what `step` returns after the observation, where these rewards are paid in place of its own."""
    rewards = [reward for reward, _ in paid]
    parts = added(parts for _, parts in paid)
    rest = {key: value for key, value in info.items() if key != KEY}
    return sum(rewards), terminated, truncated, rest | ({KEY: parts} if parts else {})


@final
class SparseReward(gymnasium.Wrapper[str, str, str, str], RecordConstructorArgs):
    """Pays the sum of an episode's rewards at its end, and nothing before.

    An episode that is cut off from outside, by `env.max_turns` or the model's context, is never paid.
    """

    def __init__(self, env: TextEnvironment) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._owed: list[Paid] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Forget what is owed."""
        self._owed = []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: str) -> Step:
        """Keep the reward back until the end."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._owed.append((float(reward), read_parts(info)))
        paid = self._owed if terminated or truncated else []
        return observation, *_together(paid, terminated, truncated, info)


@final
class DelayedReward(gymnasium.Wrapper[str, str, str, str], RecordConstructorArgs):
    """Pays each reward `turns` turns late; what is still owed at the end is paid then."""

    @checked
    def __init__(self, env: TextEnvironment, *, turns: PositiveInt) -> None:
        RecordConstructorArgs.__init__(self, turns=turns)
        super().__init__(env)
        self._turns = turns
        self._owed: deque[Paid] = deque()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Forget what is owed."""
        self._owed = deque([(0.0, {})] * self._turns)
        return self.env.reset(seed=seed, options=options)

    def step(self, action: str) -> Step:
        """Keep the reward back for a while."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._owed.append((float(reward), read_parts(info)))
        paid = self._owed if terminated or truncated else [self._owed.popleft()]
        return observation, *_together(paid, terminated, truncated, info)


@final
class LengthLimit(gymnasium.Wrapper[str, str, str, str], RecordConstructorArgs):
    """Passes answers of more than `characters` on as empty ones: what is too long counts as nothing said."""

    @checked
    def __init__(self, env: TextEnvironment, *, characters: PositiveInt) -> None:
        RecordConstructorArgs.__init__(self, characters=characters)
        super().__init__(env)
        self._characters = characters

    def step(self, action: str) -> Step:
        """Pass the answer on if it is short enough."""
        return self.env.step(action if len(action) <= self._characters else "")


@final
class AnswerExtraction(gymnasium.Wrapper[str, str, str, str], RecordConstructorArgs):
    r"""Passes on only the final answer within a longer text, so that a model may think before it answers.

    rule: `mark` (what follows `####`), `tags` (within `<answer>` and `</answer>`), `boxed` (within `\\boxed{}`) or
    `last_line`. A text without a final answer, or with two, is passed on as an empty one.
    """

    @checked
    def __init__(self, env: TextEnvironment, *, rule: Literal["mark", "tags", "boxed", "last_line"]) -> None:
        RecordConstructorArgs.__init__(self, rule=rule)
        super().__init__(env)
        self._find = RULES[rule]

    def step(self, action: str) -> Step:
        """Find the answer and pass it on."""
        return self.env.step(self._find(action) or "")

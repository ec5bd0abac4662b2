"""A list of prompts and a function that pays for answers: a task without a class of its own.

Of the different prompts a fifth is held out, a tenth is for validation and the rest is trained on. Their hashes decide, so that
the order of the list does not, and a prompt that is in it twice is in one part alone.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsFloat, final

import gymnasium
from gymnasium.error import ResetNeeded

from evotext.rollouts.reward_parts import KEY

from .spaces import FreeText

Reward = Callable[[str, str], SupportsFloat | Mapping[str, SupportsFloat]]
"""Pays for the answer to a prompt: a number, or named parts that add up to it."""
SHARES = {"test": 0.2, "validation": 0.1}
"""Shares of the different prompts, at least one prompt each. The rest is `train`."""


def divided(prompts: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return the prompts of each split. Raise ValueError for less than three different ones, and for what is no text."""
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise ValueError(f"prompts: expected texts, got {type(prompt).__name__}")
    left = sorted(set(prompts), key=lambda prompt: (hashlib.blake2b(prompt.encode()).digest(), prompt))
    if len(left) < 1 + len(SHARES):
        raise ValueError(
            f"prompts: expected at least {1 + len(SHARES)} different ones, since those that are trained on, validated with "
            f"and held out are disjoint, got {len(left)}"
        )
    splits: dict[str, Sequence[str]] = {}
    count = len(left)
    for split, share in SHARES.items():
        size = max(1, round(share * count))
        splits[split], left = left[:size], left[size:]
    return splits | {"train": left}


@final
class Prompts(gymnasium.Env[str, str]):
    """Description:
        One prompt of a list, answered once and paid by a function.

    Observation Space:
        `FreeText`. The prompt.

    Action Space:
        `FreeText`. The answer, passed on as it is.

    Rewards:
        What the function returns; if it returns parts by name, their sum, and the parts in `info`.

    Episode End:
        Terminates after the first answer.

    Arguments:
        `splits`: the prompts that `reset` chooses among by `options["split"]`, as `divided` gives them.
        `reward`: the function.

    Version History:
        v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": [], "splits": ("train", "validation", "test")}

    def __init__(self, splits: Mapping[str, Sequence[str]], reward: Reward) -> None:
        self.observation_space = self.action_space = FreeText()
        self._splits, self._reward = splits, reward
        self._prompt: str | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Choose a prompt of the split (default: train); the same seed and split give the same one."""
        super().reset(seed=seed)
        split = (options or {}).get("split", "train")
        if split not in self._splits:
            raise ValueError(f"expected the reset option 'split' to be one of {', '.join(self._splits)}, got {split!r}")
        prompts = self._splits[split]
        self._prompt = prompts[int(self.np_random.integers(len(prompts)))]
        return self._prompt, {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Pay for the answer."""
        if self._prompt is None:
            raise ResetNeeded("expected a running episode: call reset() first")
        prompt, self._prompt = self._prompt, None
        paid = self._reward(prompt, action)
        if isinstance(paid, Mapping):
            return "", sum(map(float, paid.values())), True, False, {KEY: dict(paid)}
        return "", paid, True, False, {}  # type: ignore[return-value]  # looked at by the engine

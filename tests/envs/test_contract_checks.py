"""The checks that anybody can run on an environment: native tasks pass, and each broken one is found out."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Text

import envs
from envs.contract import CHECKS
from envs.spaces import FreeText

Answered = tuple[Any, Any, bool, bool, dict[str, Any]]
COUNTS = {"shared": 0}


class Fine(gymnasium.Env[str, str]):
    """Say a number backwards."""

    observation_space: Any = FreeText()
    action_space: Any = FreeText()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        odd = (options or {}).get("split") == "test"
        self.word = f"w{2 * int(self.np_random.integers(10**6)) + odd}"
        return self.word, {"instructions": "Say it backwards."}

    def step(self, action: str) -> Answered:
        return "", float(action == self.word[::-1]), True, False, {}


class NarrowSpace(Fine):
    action_space = Text(10)


class Endless(Fine):
    def step(self, action: str) -> Answered:
        return "go on", 0.0, False, False, {}


class OwnGenerator(Fine):
    def step(self, action: str) -> Answered:
        COUNTS["shared"] += 1
        return str(COUNTS["shared"]), 0.0, True, False, {}


class DeafToSeeds(Fine):
    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**kwargs)
        self.word = "same"
        return self.word, {}


class DeafToSplits(Fine):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return super().reset(seed=seed)


class Generous(Fine):
    def step(self, action: str) -> Answered:
        return "", float(self.word in action), True, False, {}


class Brittle(Fine):
    def step(self, action: str) -> Answered:
        action.encode()
        return "", 0.0, True, False, {}


class NumpyTypes(Fine):
    def step(self, action: str) -> Answered:
        return "", np.float32(0), np.bool_(True), False, {}  # type: ignore[return-value]


@pytest.mark.parametrize("env_id", envs.native_ids())
def test_native_tasks_pass_every_check(env_id: str) -> None:
    for name, check in CHECKS.items():
        if name != "gymnasiums check":  # test_contract.py runs it
            assert check(lambda: gymnasium.make(env_id), 70) == "", name


def test_a_users_environment_passes_every_check() -> None:
    assert {name: check(Fine, 3) for name, check in CHECKS.items()} == dict.fromkeys(CHECKS, "")


@pytest.mark.parametrize(
    ("broken", "name", "words"),
    [
        (NarrowSpace, "text spaces", "action_space"),
        (Endless, "ends", "env.max_turns=3"),
        (OwnGenerator, "seeds decide", "self.np_random"),
        (DeafToSeeds, "seeds differ", "same episode"),
        (DeafToSplits, "splits differ", "options"),
        (Generous, "garbage is not paid", "paid 1"),
        (Brittle, "every text is answered", "UnicodeEncodeError"),
        (NumpyTypes, "plain types", "float32"),
    ],
)
def test_a_broken_environment_is_found_out(broken: Any, name: str, words: str) -> None:
    assert words in CHECKS[name](broken, 3)

"""The checks that anybody can run on an environment: native tasks pass, and each broken one is found out."""

import sys
import time
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Text

import envs
from envs.contract import CHECKS
from envs.spaces import FreeText
from tests.scripts_in_process import status_of

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


class GenerousJudge(Fine):
    @staticmethod
    def score_batch(environments: list[Any]) -> list[float]:
        return [1.0] * len(environments)


class Brittle(Fine):
    def step(self, action: str) -> Answered:
        action.encode()
        return "", 0.0, True, False, {}


class PartsTooFew(Fine):
    def step(self, action: str) -> Answered:
        named = {"reward_parts": {"format": 0.1}} if action == "x" else {}
        return "", 0.1 if action in ("x", "e") else 0.0, True, False, named


class PartsTooMuch(Fine):
    def step(self, action: str) -> Answered:
        return "", 0.0, True, False, {"reward_parts": {"format": 0.1, "answer": 0.0}}


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
        (GenerousJudge, "garbage is not paid", "paid 1"),
        (Brittle, "every text is answered", "UnicodeEncodeError"),
        (NumpyTypes, "plain types", "float32"),
        (PartsTooFew, "parts add up", "paid 0.1, and info['reward_parts'] comes to 0: {}"),
        (PartsTooMuch, "parts add up", "comes to 0.1"),
    ],
)
def test_a_broken_environment_is_found_out(broken: Any, name: str, words: str) -> None:
    assert words in CHECKS[name](broken, 3)


class Missing(Fine):
    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        raise RuntimeError("no data file")


class Leaving(Fine):
    def step(self, action: str) -> Answered:
        sys.exit(5)


class Hanging(Fine):
    def step(self, action: str) -> Answered:
        while True:
            with suppress(Exception):
                time.sleep(10)


for _name, _kind in (("Fine", Fine), ("Missing", Missing), ("Leaving", Leaving), ("Hanging", Hanging)):
    gymnasium.register(f"checked/{_name}-v0", _kind, reward_threshold=1.0)


@pytest.mark.parametrize(
    ("name", "failures", "words"),
    [
        ("Fine", 0, "every text is answered"),
        ("Missing", 9, "RuntimeError: no data file"),
        ("Leaving", 9, "SystemExit: 5"),
        ("Hanging", 9, "took longer than env.step_seconds=0.2"),
    ],
)
def test_the_command_goes_through_every_check_whatever_the_environment_does(
    name: str, failures: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("env=gym", f"env.id={__name__}:checked/{name}-v0", f"env.step_seconds={0.2 if name == 'Hanging' else 60}")
    status = status_of("check_env", *asked, monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    assert len(said.splitlines()) == len(CHECKS) and said.count("FAILED") == failures and words in said
    assert status == (1 if failures else 0)

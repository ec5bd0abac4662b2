"""Environments for tests, registered under `toy/`: well-behaved and badly behaved ones."""

import random
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import gymnasium
from gymnasium import spaces

FAULTY_SHARE = {"some": 0.3, "all": 1.0}
REWARDS: dict[str, Any] = {"nan": float("nan"), "none": None, "text": "1.0", "huge": 1e39}


class Unwritable(Exception):
    """An error whose message raises."""

    def __str__(self) -> str:
        raise RuntimeError("no message")


class Chatter(gymnasium.Env[str, str]):
    """Talks for a number of turns that depends on the seed; pays each answer's length in the end, 0.25 in between."""

    observation_space = spaces.Text(10_000)
    action_space = spaces.Text(10_000)

    def __init__(self, fault: str = "", longest: int = 4, prompt: int = 1) -> None:
        self.fault, self.longest, self.prompt = fault, longest, prompt

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, self.longest + 1))
        self.seed_given = seed
        if self.fault == "reset":
            raise RuntimeError("broken at reset")
        while self.fault == "reset_hang":
            pass
        if self.fault == "reset_some" and self.np_random.random() < 0.5:
            raise RuntimeError("broken at reset")
        if self.fault in ("reset_none", "reset_text"):
            return {"reset_none": None, "reset_text": "ab"}[self.fault]  # type: ignore[return-value]
        return f"s{seed} " * self.prompt, {}

    def step(self, action: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        if self.np_random.random() < FAULTY_SHARE.get(self.fault, 0.0):
            raise RuntimeError("lost the [/database]")
        if self.fault == "step" and self.seed_given % 4 == 0:
            raise RuntimeError("broken at step")
        while self.fault == "hang_all" or (self.fault == "hang" and self.seed_given == 0):
            pass
        while self.fault == "stubborn" and self.seed_given == 0:
            with suppress(Exception):
                time.sleep(10)
        if self.fault == "exit" and self.seed_given % 4 == 0:
            sys.exit(3)
        if self.fault == "surrogate" and self.left:
            return "\ud800", 0.0, False, False, {}
        if self.fault in REWARDS:
            return "", REWARDS[self.fault], False, False, {}
        if self.fault == "unwritable":
            raise Unwritable
        if self.fault == "base":
            raise BaseException("not an Exception")
        if self.fault == "none_at_all":
            return None  # type: ignore[return-value]
        if self.fault in ("flag", "no_flag"):
            flags: Any = {"flag": ("False", False), "no_flag": (False, None)}[self.fault]
            return "x", 0.0, *flags, {}
        if self.fault == "truncated":
            return "", 0.0, False, True, {}
        if self.fault == "type" and self.left:
            return 7, 0.0, False, False, {}
        over = self.left == 0
        return f"left {self.left}", float(len(action)) if over else 0.25, over, False, {}


gymnasium.register("toy/Chatter-v0", Chatter, reward_threshold=3.0)
gymnasium.register("toy/NoThreshold-v0", Chatter)


class Tenths(gymnasium.Env[str, str]):
    """Pays 0.1 ten times, which adds up to a little less than 1."""

    observation_space = spaces.Text(10)
    action_space = spaces.Text(10_000)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 10
        return "s", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return "s", 0.1, self.left == 0, False, {}


gymnasium.register("toy/Tenths-v0", Tenths, reward_threshold=1.0)


class Dawdling(Chatter):
    """Takes a random time for each call, so that the order in which environments come back varies."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        time.sleep(random.uniform(0, 0.003))
        return super().reset(seed=seed, options=options)

    def step(self, action: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(random.uniform(0, 0.003))
        return super().step(action)


gymnasium.register("toy/Dawdling-v0", Dawdling, reward_threshold=3.0)


class Meeting(gymnasium.Env[str, str]):
    """A step waits at the barrier until enough environments step at the same time; keeps the greatest number that did."""

    observation_space = spaces.Text(10)
    action_space = spaces.Text(10_000)
    lock = threading.Lock()
    here = most = 0
    barrier = threading.Barrier(1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return "s", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        with self.lock:
            Meeting.here += 1
            Meeting.most = max(Meeting.most, Meeting.here)
        self.barrier.wait(timeout=20)
        with self.lock:
            Meeting.here -= 1
        return "", 1.0, True, False, {}


gymnasium.register("toy/Meeting-v0", Meeting, reward_threshold=1.0)


class Judged(Chatter):
    """Its steps pay 0.25 and at the end the answer's length, as Chatter's do; a judge then pays 100 x seed + turn."""

    batches: list[list[int]] = []

    def __init__(self, judge: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.judge = judge

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        self.turn = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        return super().step(action)

    @staticmethod
    def score_batch(environments: Sequence["Judged"]) -> Any:
        Judged.batches.append([env.seed_given or 0 for env in environments])
        judge = environments[0].judge
        while judge == "hang":
            pass
        if judge == "raises":
            raise ConnectionError("the judge is away")
        scores: list[Any] = [100.0 * (env.seed_given or 0) + env.turn for env in environments]
        if judge == "one_nan":
            scores[2] = float("nan")
        return {"short": scores[:-1], "none": None}.get(judge, scores)


gymnasium.register("toy/Judged-v0", Judged, reward_threshold=3.0)


class InParts(Chatter):
    """Chatter, which says what its reward is for: each turn, and at the end the length."""

    def step(self, action: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, _ = super().step(action)
        parts: Any = {"length" if terminated else "turn": reward, "never": 0}
        bad: dict[str, Any] = {"parts_text": {"turn": "0.25"}, "parts_list": [0.25], "parts_name": {"a b": 0.25}}
        bad |= {"parts_nan": {"turn": float("nan")}}
        return observation, reward, terminated, truncated, {"reward_parts": bad.get(self.fault, parts)}


gymnasium.register("toy/InParts-v0", InParts, reward_threshold=3.0)


class JudgedInParts(Judged):
    """Judged, with a name for what its steps pay."""

    def step(self, action: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation, reward, terminated, truncated, {"reward_parts": {"step": reward}}


gymnasium.register("toy/JudgedInParts-v0", JudgedInParts, reward_threshold=3.0)

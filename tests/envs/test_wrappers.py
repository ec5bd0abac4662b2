"""Wrappers change when rewards come and what the environment reads, and nothing else."""

import warnings
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import envs  # noqa: F401
from envs.spaces import FreeText
from envs.wrappers import AnswerExtraction, DelayedReward, LengthLimit, SparseReward


class Payer(gymnasium.Env[str, str]):
    """Pays what the answer says, five times, and repeats the answer."""

    observation_space = action_space = FreeText()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 5
        return "go", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return action, float(action or 0), self.left == 0, False, {}


def rewards(env: gymnasium.Env[str, str], answers: str = "12345") -> list[float]:
    env.reset(seed=0)
    return [env.step(answer)[1] for answer in answers]


def test_sparse_reward() -> None:
    env = SparseReward(Payer())
    assert rewards(env, "1") == [0]
    assert rewards(env) == [0, 0, 0, 0, 15]


@pytest.mark.parametrize(
    ("turns", "expected"),
    [(1, [0, 1, 2, 3, 9]), (2, [0, 0, 1, 2, 12]), (4, [0, 0, 0, 0, 15]), (9, [0, 0, 0, 0, 15])],
)
def test_delayed_reward(turns: int, expected: list[float]) -> None:
    env = DelayedReward(Payer(), turns=turns)
    assert rewards(env, "999") != expected
    assert rewards(env) == expected


class NamingPayer(Payer):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation, reward, terminated, truncated, {"reward_parts": {f"of_{action}": reward}, "other": action}


@pytest.mark.parametrize("wrap", [SparseReward, lambda env: DelayedReward(env, turns=2)])
def test_parts_are_paid_with_their_reward(wrap: Any) -> None:
    env = wrap(NamingPayer())
    env.reset(seed=0)
    env.step("9")
    env.reset(seed=0)
    steps = [env.step(answer) for answer in "12345"]
    assert [info["other"] for *_, info in steps] == list("12345")
    for _, reward, _, _, info in steps:
        assert sum(info.get("reward_parts", {}).values()) == reward
    assert sum(reward for _, reward, *_ in steps) == 15 and len(steps[-1][-1]["reward_parts"]) >= 3


def test_length_limit() -> None:
    env = LengthLimit(Payer(), characters=2)
    env.reset(seed=0)
    assert [env.step(text)[0] for text in ("", "12", "123")] == ["", "12", ""]


@pytest.mark.parametrize(
    ("rule", "text", "read"),
    [("mark", "so #### 7", "7"), ("tags", "<answer> 7 </answer>", "7"), ("boxed", r"\boxed{7}", "7"),
     ("last_line", "so\n7", "7"), ("mark", "7", ""), ("boxed", r"\boxed{7} \boxed{8}", "")],
)  # fmt: skip
def test_answer_extraction(rule: Any, text: str, read: str) -> None:
    env = AnswerExtraction(Payer(), rule=rule)
    env.reset(seed=0)
    assert env.step(text)[0] == read


@pytest.mark.parametrize(
    ("wrap", "options", "word"),
    [(DelayedReward, {"turns": 0}, "turns"), (LengthLimit, {"characters": 0}, "characters"),
     (AnswerExtraction, {"rule": "xml"}, "rule")],
)  # fmt: skip
def test_options_are_checked(wrap: Any, options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        wrap(Payer(), **options)


@pytest.mark.parametrize(
    "wrap",
    [SparseReward, lambda env: DelayedReward(env, turns=2), lambda env: LengthLimit(env, characters=9),
     lambda env: AnswerExtraction(env, rule="last_line")],
)  # fmt: skip
def test_a_wrapped_task_is_a_gymnasium_environment_with_its_threshold(wrap: Any) -> None:
    env = wrap(gymnasium.make("envs:evotext/Recall-v0"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        check_env(env)
    assert env.spec.reward_threshold == 1.0

"""Environments of the package verifiers, loaded from a module as its users write them."""

import asyncio
import importlib.util
import signal
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from envs.adapters.verifiers import Verifiers
from evotext.rollouts.collector import Collector
from evotext.rollouts.reward_parts import KEY
from evotext.rollouts.task import TextTask
from evotext.types import Ending, RolloutPlan, Sampling
from tests.small_models import small_model

needs_verifiers = pytest.mark.skipif(importlib.util.find_spec("verifiers") is None, reason="an optional extra")
pytestmark = pytest.mark.filterwarnings("ignore")

MODULE = '''
import time

import verifiers as vf
from datasets import Dataset

ENDED = []


def rows(first, last):
    return Dataset.from_list([{"question": f"say {n}", "answer": str(n), "info": {"n": n}} for n in range(first, last)])


async def right(completion, answer):
    return float(completion[-1]["content"] == answer)


def brief(completion, info):
    return float(len(completion[-1]["content"]) < 4) * (info["n"] >= 0)


def forever(completion):
    while completion[-1]["content"] != "stop":
        time.sleep(0.001)
    return 1.0


def judged(completion, judge):
    return 1.0


def compared(completions):
    return [1.0] * len(completions)


def tool(x: int) -> int:
    """Return x."""
    return x


class Count(vf.MultiTurnEnv):
    """Count up from the answer, a number a turn, until the third."""

    async def setup_state(self, state):
        state["next"] = int(state["answer"])
        return state

    async def env_response(self, messages, state, **kwargs):
        said = messages[-1]["content"]
        if said == "broken":
            raise vf.Error("the game is broken")
        state["next"] += said == str(state["next"])
        if state["next"] == int(state["answer"]) + 2:
            state["final_env_response"] = [{"role": "user", "content": "done"}]
            return state["final_env_response"]
        return [{"role": "user", "content": "and"}, {"role": "user", "content": f"next {state['next']}"}]

    @vf.cleanup
    async def note(self, state):
        ENDED.append(state["answer"])


def counted(state):
    return (state["next"] - int(state["answer"])) / 2


def load_environment(kind="single", train=40, held_out=None):
    data = {"dataset": rows(0, train), "eval_dataset": held_out and rows(train - 2, train + held_out)}
    system = {"system_prompt": "Say the number."}
    if kind == "single":
        return vf.SingleTurnEnv(rubric=vf.Rubric(funcs=[right, brief], weights=[1.0, 0.5]), **system, **data)
    if kind == "multi":
        return Count(rubric=vf.Rubric(funcs=[counted]), max_turns=4, **data)
    if kind == "forever":
        return vf.SingleTurnEnv(rubric=vf.Rubric(funcs=[forever]), **data)
    if kind == "few_shot":
        few = [{"role": "user", "content": "say 1"}, {"role": "assistant", "content": "1"}]
        return vf.SingleTurnEnv(rubric=vf.Rubric(funcs=[right]), few_shot=few, **data)
    if kind == "judge":
        rubric = vf.JudgeRubric(judge_client=object())
        rubric.add_reward_func(judged)
        return vf.SingleTurnEnv(rubric=rubric, **data)
    if kind == "judging":
        return vf.SingleTurnEnv(rubric=vf.Rubric(funcs=[judged]), **data)
    if kind == "group":
        return vf.SingleTurnEnv(rubric=vf.Rubric(funcs=[compared]), **data)
    if kind == "tools":
        return vf.ToolEnv(tools=[tool], rubric=vf.Rubric(funcs=[right]), **data)
    raise KeyError("no such kind")
'''


@pytest.fixture(scope="module")
def env_id(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A module of one's own, as a package of an environment is one."""
    folder: Path = tmp_path_factory.mktemp("modules")
    (folder / "toy_verifiers.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    yield "toy-verifiers"
    sys.path.remove(str(folder))


def made(env_id: str, kind: str = "single", **more: Any) -> Verifiers:
    return Verifiers(env_id=env_id, env_args={"kind": kind, **more})


@needs_verifiers
class TestLoaded:
    def test_is_a_gymnasium_environment(self, env_id: str) -> None:
        check_env(gymnasium.make("envs.adapters:evotext/Verifiers-v0", env_id=env_id).unwrapped)

    def test_a_question_is_answered_once_and_paid_in_parts(self, env_id: str) -> None:
        env = made(env_id)
        asked, info = env.reset(seed=3)
        assert asked.startswith("say ") and info == {"instructions": "Say the number."}
        answer = asked.removeprefix("say ")
        assert env.step(answer)[:4] == ("", 1.5, True, False)
        for said, parts in ((answer, (1.0, 0.5)), ("zz", (0.0, 0.5)), (answer + "\ud800" * 4, (0.0, 0.0))):
            env.reset(seed=3)
            _, reward, *_, info = env.step(said)
            assert reward == sum(parts) and info == {KEY: {"right": parts[0], "brief": parts[1]}}
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(answer)

    def test_splits_are_disjoint_and_seeds_decide(self, env_id: str) -> None:
        env, twin = made(env_id), made(env_id)
        asked: dict[str, set[str]] = {}
        for split in env.metadata["splits"]:
            found = [env.reset(seed=seed, options={"split": split})[0] for seed in range(60)]
            assert found == [twin.reset(seed=seed, options={"split": split})[0] for seed in range(60)]
            asked[split] = set(found)
        assert [len(asked[split]) for split in ("test", "validation")] == [8, 4] and len(asked["train"]) > 20
        assert asked["train"].isdisjoint(asked["test"] | asked["validation"])
        assert asked["test"].isdisjoint(asked["validation"])

    def test_an_evaluation_set_is_held_out(self, env_id: str) -> None:
        env = made(env_id, held_out=3)
        asked = {
            split: {env.reset(seed=seed, options={"split": split})[0] for seed in range(80)}
            for split in ("train", "test")
        }
        assert asked["test"] == {f"say {n}" for n in range(38, 43)}
        assert asked["train"].isdisjoint(asked["test"]) and len(asked["train"]) > 20

    def test_a_conversation_of_several_turns(self, env_id: str) -> None:
        """Two at the same time, each with its own state; what the environment says between answers is shown with its roles."""
        envs = [made(env_id, "multi") for _ in range(2)]
        numbers = [int(env.reset(seed=seed)[0].removeprefix("say ")) for seed, env in enumerate(envs)]
        assert numbers[0] != numbers[1]
        for env, n in zip(envs, numbers, strict=True):
            assert env.step("x")[:4] == (f"user: and\n\nuser: next {n}", 0.0, False, False)
        for env, n in zip(envs, numbers, strict=True):
            assert env.step(str(n))[:4] == (f"user: and\n\nuser: next {n + 1}", 0.0, False, False)
        assert envs[0].step(str(numbers[0] + 1))[1:4] == (1.0, True, False)
        assert envs[1].step("x")[:3] == (f"user: and\n\nuser: next {numbers[1] + 1}", 0.0, False)
        _, reward, terminated, truncated, info = envs[1].step("x")  # their own limit of turns
        assert (reward, terminated, truncated) == (0.5, True, False) and info == {KEY: {"counted": 0.5}}

    def test_examples_in_the_prompt_are_shown_with_their_roles(self, env_id: str) -> None:
        asked, info = made(env_id, "few_shot").reset(seed=0)
        assert asked.startswith("user: say 1\n\nassistant: 1\n\nuser: say ") and info == {"instructions": ""}

    def test_an_episode_that_is_left_is_cleaned_up(self, env_id: str) -> None:
        env = made(env_id, "multi")
        ended = sys.modules["toy_verifiers"].ENDED
        answer = env.reset(seed=5)[0].removeprefix("say ")
        ended.clear()
        env.reset(seed=6)
        assert ended == [answer]
        env.close()
        assert len(ended) == 2

    def test_in_a_notebook_whose_loop_runs(self, env_id: str) -> None:
        async def cell() -> float:
            env = made(env_id)
            asked, _ = env.reset(seed=0)
            return env.step(asked.removeprefix("say "))[1]

        assert asyncio.run(cell()) == 1.5

    def test_ctrl_c_stays_ours(self, env_id: str) -> None:
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        made(env_id, train=33)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"kind": "judge"}, "expected rewards that code computes, got judged, which asks a judge model"),
            ({"kind": "judging"}, "expected rewards that code computes, got judged, which asks a judge model"),
            ({"kind": "group"}, "expected rewards of single episodes"),
            ({"kind": "tools"}, "expected an environment without tools"),
            ({"kind": "neither"}, "verifiers cannot load 'toy-verifiers': .*no such kind"),
            ({"digits": 3}, "verifiers cannot load 'toy-verifiers': .*unexpected keyword argument 'digits'"),
            ({"train": 2}, "expected at least 3 different questions"),
        ],
    )
    def test_what_cannot_be_played_is_one_clear_line(self, env_id: str, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=rf"env_id: {message}") as raised:
            Verifiers(env_id=env_id, env_args=options)
        assert "\n" not in str(raised.value)

    def test_an_unknown_environment_is_one_clear_line(self) -> None:
        with pytest.raises(ValueError, match=r"env_id: verifiers cannot load 'no-such-thing': .*no_such_thing"):
            Verifiers(env_id="no-such-thing")

    @pytest.mark.parametrize(
        ("kind", "workers", "ending"),
        [("multi", 0, Ending.TASK), ("multi", 4, Ending.TASK), ("forever", 0, Ending.TIME_LIMIT)],
    )
    def test_a_model_plays(self, env_id: str, kind: str, workers: int, ending: Ending) -> None:
        """Rewards that never come are the episode's fault."""
        task = TextTask(
            name="count",
            id="envs.adapters:evotext/Verifiers-v0",
            max_new_tokens=4,
            max_turns=8,
            success_return=1.0,
            strict=False,
            step_seconds=60.0 if ending == Ending.TASK else 0.05,
            workers=workers,
            env_id=env_id,
            env_args={"kind": kind},
        )
        plan = RolloutPlan(seed=0, generation=0, instances=(0, 2), groups=(0, 1), sampling=Sampling(temperature=1.0))
        batch = Collector(small_model(), task, rows=4).collect(plan)
        task.close()
        assert batch.ending_B.tolist() == [ending] * 2

    def test_an_error_of_the_environment_is_the_episodes_fault(self, env_id: str) -> None:
        env = made(env_id, "multi")
        env.reset(seed=0)
        with pytest.raises(RuntimeError, match="the game is broken"):
            env.step("broken")
        assert env.reset(seed=1)[0].startswith("say ")


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verifiers.legacy", None)  # as in verifiers 0.4
    with pytest.raises(ImportError, match=r"-c constraints.txt -e '\.\[verifiers\]'"):
        Verifiers(env_id="anything")

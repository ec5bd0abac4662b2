"""The client of OpenEnv, against a server of the real package on this machine's loopback."""

import importlib.util
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from envs.adapters.openenv import OpenEnv
from evotext.rollouts.collector import Collector
from evotext.rollouts.task import TextTask
from evotext.types import Ending, RolloutPlan, Sampling
from tests.small_models import small_model

needs_openenv = pytest.mark.skipif(importlib.util.find_spec("openenv") is None, reason="an optional extra")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of a game: say the number that the seed ends with, within three turns."""
    import uvicorn
    from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app

    class Say(Action):
        message: str

    class Told(Observation):
        text: str
        turns: int

    class Guess(Environment):  # type: ignore[misc]
        SUPPORTS_CONCURRENT_SESSIONS = True

        def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Told:
            self.number, self.turns = (seed or 0) % 10, 0
            return Told(text=f"seed {seed}", turns=0)

        def step(self, action: Say, timeout_s: float | None = None, **_: Any) -> Told:
            self.turns += 1
            if action.message == "fail":
                raise RuntimeError("the game is broken")
            right = action.message.strip() == str(self.number)
            done = right or self.turns == 3
            return Told(text="no", turns=self.turns, reward=float(right) if done else None, done=done)

        @property
        def state(self) -> State:
            return State(step_count=self.turns)

    app = create_fastapi_app(Guess, Say, Told, max_concurrent_envs=16)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server has ended"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=10)


@needs_openenv
class TestOnAServer:
    def test_an_episode_is_played_to_its_end(self, url: str) -> None:
        env = OpenEnv(url=url, observation="text", instructions="Say it.")
        said, info = env.reset(seed=3)
        assert said.startswith("seed ") and info == {"instructions": "Say it."}
        assert env.step("\ud800")[:4] == ("no", 0.0, False, False)
        assert env.step(said[-1])[:4] == ("no", 1.0, True, False)
        env.reset(seed=3)
        assert [env.step("x")[1:3] for _ in range(3)] == [(0.0, False), (0.0, False), (0.0, True)]
        env.close()

    def test_seeds_decide_and_splits_have_other_ones(self, url: str) -> None:
        env, twin = (OpenEnv(url=url, observation="text") for _ in range(2))
        for split, odd in (("train", 0), ("test", 1)):
            said = [env.reset(seed=seed, options={"split": split})[0] for seed in range(10)]
            assert said == [twin.reset(seed=seed, options={"split": split})[0] for seed in range(10)]
            assert len(set(said)) == 10 and {int(text.split()[1]) % 2 for text in said} == {odd}
        env.close()
        twin.close()

    def test_without_a_field_all_are_shown(self, url: str) -> None:
        env = OpenEnv(url=url)
        assert '"turns": 0' in env.reset(seed=0)[0]
        env.close()
        wrong = OpenEnv(url=url, observation="board")
        with pytest.raises(ValueError, match="observation: expected the field 'board', got text, turns"):
            wrong.reset(seed=0)
        wrong.close()

    def test_a_model_plays_on_it_and_the_servers_fault_is_the_episodes(self, url: str) -> None:
        def ended(**options: Any) -> list[int]:
            task = TextTask(
                name="guess",
                id="envs.adapters:evotext/OpenEnv-v0",
                max_new_tokens=4,
                max_turns=8,
                success_return=1.0,
                strict=False,
                step_seconds=60.0,
                workers=0,
                url=url,
                observation="text",
                **options,
            )
            plan = RolloutPlan(
                seed=0, generation=0, instances=(0, 2, 4), groups=(0, 1, 2), sampling=Sampling(temperature=1.0)
            )
            batch = Collector(small_model(), task, rows=4).collect(plan)
            task.close()
            return batch.ending_B.tolist()

        assert ended() == [Ending.TASK] * 3
        assert ended(action="words") == [Ending.RAISED] * 3, "a field that the server's action lacks"


@needs_openenv
def test_a_server_that_is_not_there_is_one_line() -> None:
    with pytest.raises(ValueError, match="url: expected an OpenEnv server that answers, got 'http://127.0.0.1:9'"):
        OpenEnv(url="http://127.0.0.1:9")


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openenv.core", None)
    with pytest.raises(ImportError, match=r"-c constraints.txt -e '\.\[openenv\]'"):
        OpenEnv(url="http://127.0.0.1:9")

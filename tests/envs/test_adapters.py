"""Adapters to other libraries' tasks: what holds with the library, and what is said without it."""

import ast
import importlib.util
import inspect
import random
import sys
import textwrap
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import envs.adapters
from envs.adapters.discrete import as_text
from envs.adapters.reasoning_gym import EVALUATED, TAKES_ANYTHING, ReasoningGym
from envs.adapters.textarena import TextArena
from evotext.rollouts.task import TextTask

needs_reasoning_gym = pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="an optional extra")
needs_textarena = pytest.mark.skipif(importlib.util.find_spec("textarena") is None, reason="an optional extra")
# Both libraries, and what they bring in, warn of their own affairs.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning", "ignore::FutureWarning")


@pytest.mark.parametrize(
    ("adapter", "module", "options"),
    [(ReasoningGym, "reasoning_gym", {"task": "leg_counting"}), (TextArena, "textarena", {"game": "Wordle-v0"})],
)
def test_without_the_library_it_says_what_to_install(
    adapter: Any, module: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"-c constraints.txt -e '\.\[{module.replace('_', '-')}\]'"):
        adapter(**options)


@needs_reasoning_gym
class TestReasoningGym:
    def test_is_a_gymnasium_environment(self) -> None:
        check_env(gymnasium.make("envs.adapters:evotext/ReasoningGym-v0", task="leg_counting"))

    def test_splits_are_disjoint_and_seeds_decide(self) -> None:
        env, twin = (ReasoningGym(task="leg_counting") for _ in range(2))
        asked: dict[str, set[str]] = {}
        for split in ("train", "test"):
            questions = [env.reset(seed=seed, options={"split": split})[0] for seed in range(40)]
            assert questions == [twin.reset(seed=seed, options={"split": split})[0] for seed in range(40)]
            asked[split] = set(questions)
            assert len(asked[split]) > 35, "neighbouring seeds have different questions"
        assert asked["train"].isdisjoint(asked["test"])

    @pytest.mark.parametrize(("strict", "within"), [(True, 0.0), (False, 0.1)])
    def test_strict_reward_pays_for_the_right_answer_alone(self, strict: bool, within: float) -> None:
        env = ReasoningGym(task="spell_backward", strict_reward=strict)
        env.reset(seed=0)
        assert env._item is not None
        right = str(env._item["answer"])
        assert env.step(right)[1:3] == (1.0, True)
        env.reset(seed=0)
        reward = env.step("x" * 50 + right)[1]
        assert reward == 0 if strict else reward >= 0

    def test_mistakes_are_one_clear_line(self) -> None:
        with pytest.raises(ValueError, match="task: expected one of .* did you mean leg_counting"):
            ReasoningGym(task="leg_countin")
        with pytest.raises(ValueError, match="leg_counting does not accept these settings: .*legs"):
            ReasoningGym(task="leg_counting", legs=3)
        with pytest.raises(ValueError, match="task: expected a task whose scorer only reads answers"):
            ReasoningGym(task="countdown")

    def test_tasks_that_evaluate_answers_are_all_known(self) -> None:
        """Reads every scorer for a call of eval and its like on something else than the task's own data."""
        from reasoning_gym.factory import DATASETS

        found = set()
        for name, (dataset, _) in DATASETS.items():
            tree = ast.parse(textwrap.dedent(inspect.getsource(dataset.score_answer)))
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {
                    "eval",
                    "exec",
                    "parse_expr",
                    "sympify",
                    "literal_eval",
                }:
                    argument = ast.unparse(node.args[0])
                    if "entry" not in argument and "metadata" not in argument:
                        found.add(name)
        assert found == EVALUATED
        assert set(DATASETS) >= EVALUATED

    def test_a_scorer_that_takes_anything_is_refused(self) -> None:
        """The task's own score, by which ten digits are always right, has to be asked for."""
        with pytest.raises(ValueError, match="pays for every text"):
            ReasoningGym(task=TAKES_ANYTHING)
        env, paid = ReasoningGym(task=TAKES_ANYTHING, strict_reward=False), set()
        for seed in range(20):
            env.reset(seed=seed)
            paid.add(env.step("0123456789")[1])
        assert paid == {1.0}


@needs_textarena
class TestTextArena:
    def test_is_a_gymnasium_environment(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_env(gymnasium.make("envs.adapters:evotext/TextArena-v0", game="GuessTheNumber-v0"))

    def test_seeds_decide_and_the_global_generator_is_left_alone(self) -> None:
        env, twin = (TextArena(game="GuessTheNumber-v0") for _ in range(2))
        random.seed(5)
        before = random.getstate()

        def numbers(env: TextArena, seeds: range) -> Iterator[int]:
            for seed in seeds:
                env.reset(seed=seed)
                yield env._game.game_number

        first = list(numbers(env, range(20)))
        assert random.getstate() == before
        assert first == list(numbers(twin, range(20))) and len(set(first)) > 5

    def test_a_wrapped_variant_is_the_plain_game(self) -> None:
        env, wrapped = TextArena(game="Bandit-v0"), TextArena(game="Bandit-v0-train")
        assert env.reset(seed=2)[0] == env.reset(seed=2)[0] == wrapped.reset(seed=2)[0]
        assert env.step("[red]") == wrapped.step("[red]")

    @pytest.mark.parametrize("game", ["Countdown-v0", "Cryptarithm-v0", "Slitherlink-v0"])
    def test_an_answer_that_a_game_mistakes_for_a_message_is_left_out(self, game: str) -> None:
        env = TextArena(game=game)
        env.reset(seed=2)
        said, reward, terminated, *_ = env.step("0123456789")
        assert "invalid move" in said and "0123456789" not in said and (reward, terminated) == (0.0, False)

    def test_a_game_is_played_to_its_end(self) -> None:
        env = TextArena(game="GuessTheNumber-v0")
        opening, _ = env.reset(seed=3)
        assert "guess" in opening.lower()
        number = env._game.game_number
        reply, reward, terminated, *_ = env.step(f"[{number - 1 if number > 1 else number + 1}]")
        assert (reward, terminated) == (0.0, False) and reply and opening not in reply
        assert env.step(f"[{number}]")[1:3] == (1.0, True)

    def test_mistakes_are_one_clear_line(self) -> None:
        with pytest.raises(ValueError, match="game: expected a game of TextArena, .* did you mean .*GuessTheNumber-v0"):
            TextArena(game="GuessTheNumber")
        with pytest.raises(ValueError, match="game: Chess-v0 cannot be played here"):
            TextArena(game="Chess-v0")


def lake(**options: Any) -> gymnasium.Env[Any, Any]:
    return gymnasium.make("FrozenLake-v1", is_slippery=False, **options)


def test_discrete_actions_are_played_by_name() -> None:
    env = as_text(lake(render_mode="ansi"), actions=["left", "down", "right", "up"], nonsense_cost=1.0)
    picture, info = env.reset(seed=0)
    assert picture.splitlines()[-4] == "[S]FFF" and "left, down, right, up" in info["instructions"]
    for action in ("down", "down", "right", "right", "down"):
        picture, reward, terminated, *_ = env.step(action)
        assert "\x1b" not in picture and (reward, terminated) == (0.0, False)
    assert env.step(" right\n")[1:3] == (1.0, True)


def nonsense(seed: int, cost: float = 1.0, turns: int = 64) -> list[tuple[str, float, bool]]:
    """An episode of CliffWalking, where each step costs 1 and a fall 100, in which nothing is ever said that makes sense."""
    env = as_text(gymnasium.make("CliffWalking-v1", render_mode="ansi"), actions=None, nonsense_cost=cost)
    env.reset(seed=seed)
    return [env.step(text)[:3] for text in ("", "west", "4", "0 1")[:turns] * (turns // 4)]


def test_nonsense_is_never_better_than_play() -> None:
    """It is play, by random actions, that costs something besides; and the same again for the same seed."""
    episode = nonsense(seed=0)
    assert all(reward in (-2.0, -101.0) and not over for _, reward, over in episode)
    assert sum(reward for _, reward, _ in episode) <= -128
    assert len({picture for picture, *_ in episode}) > 4, "it moves"
    assert nonsense(seed=0) == episode != nonsense(seed=1)
    assert [reward + 1 for _, reward, _ in episode] == [reward for _, reward, _ in nonsense(seed=0, cost=0.0)]


class Watched(gymnasium.ActionWrapper[Any, Any, Any]):
    """Keeps the actions that were played."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.played: list[int] = []

    def action(self, action: int) -> int:
        self.played.append(action)
        return action


def test_random_actions_are_of_every_kind_and_do_not_repeat_the_environments_own_draws() -> None:
    watched = Watched(gymnasium.make("CliffWalking-v1", render_mode="ansi"))
    env = as_text(watched, actions=None, nonsense_cost=0.0)
    for seed in range(400):
        env.reset(seed=seed)
        env.step("?")
    own = [int(gymnasium.utils.seeding.np_random(seed)[0].integers(4)) for seed in range(400)]
    assert all(70 < watched.played.count(action) < 130 for action in range(4))
    assert 70 < sum(a == b for a, b in zip(watched.played, own, strict=True)) < 130


@pytest.mark.parametrize(
    ("env", "actions", "message"),
    [
        (lambda: lake(), None, "add .env.render_mode=ansi"),
        (lambda: lake(render_mode="ansi"), ["a", "b"], "expected 4 different names"),
        (lambda: gymnasium.make("envs:evotext/Sort-v0"), ["a"], "actions: expected null"),
        (lambda: gymnasium.make("Pendulum-v1"), None, "got the action space Box"),
    ],
)
def test_what_is_no_text_is_refused(env: Any, actions: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_text(env(), actions=actions, nonsense_cost=1.0)


def test_wrappers_of_a_configuration_are_put_around() -> None:
    task = TextTask(
        name="lake",
        id="FrozenLake-v1",
        max_new_tokens=8,
        max_turns=20,
        success_return=None,
        strict=True,
        step_seconds=60.0,
        workers=0,
        wrappers={"as_text": lambda env: as_text(env, actions=None, nonsense_cost=1.0)},
        render_mode="ansi",
    )
    assert task.success_return == 0.7 and "[S]" in task.environments(2)[1].reset(seed=0)[0]


def test_the_doors_are_no_native_tasks() -> None:
    assert not any("ReasoningGym" in name or "TextArena" in name for name in envs.native_ids())

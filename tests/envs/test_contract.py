"""The contract of every native task. Gymnasium's registry lists them: a new task needs no line here."""

import copy
import hashlib
import json
import pickle
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from omegaconf import OmegaConf

import envs
from envs.text_env import SPLITS, TextEnv, split_of
from envs.warm_up import CORE
from evotext.cli.composing import compose

IDS = envs.native_ids()
CONFIGS = Path(__file__).parents[2] / "conf" / "env"
HEADINGS = (
    "Description",
    "Observation Space",
    "Action Space",
    "Rewards",
    "Episode End",
    "Arguments",
    "Version History",
)
GARBAGE = ("", " ", "\n", "0", "0123456789", "9876543210", "1234567890" * 50, "x", "?", "ok", "\x00", "½²٣", "🙂" * 100)


# Recorded results rest on these instances: a task whose default ones change gets a new version.
INSTANCES = {
    "evotext/Arithmetic-v0": "31899554810d4759",
    "evotext/Code-v0": "740c87974be4b8f2",
    "evotext/Conciseness-v0": "4a0438f9903e61e7",
    "evotext/Countdown-v0": "e2bb627d89832824",
    "evotext/FrozenLake-v0": "d3c04e40b70b6666",
    "evotext/GuessNumber-v0": "91aa7c830cb07b17",
    "evotext/Hangman-v0": "8ede87b6523cc005",
    "evotext/Hanoi-v0": "0d04c07ec72bbee9",
    "evotext/KeyDoor-v0": "92e2a323f39d563f",
    "evotext/Logic-v0": "d79ddff2c7e7c58e",
    "evotext/Mastermind-v0": "f2b52d46494de1ff",
    "evotext/Recall-v0": "655301d2f5946aa1",
    "evotext/Sokoban-v0": "98689846d59b7497",
    "evotext/Sort-v0": "4448a0645cafa741",
    "evotext/StringEdit-v0": "85f302d6270e7993",
    "evotext/Trade-v0": "1769c94f043eb10d",
    "evotext/WordProblems-v0": "2990d40f321fb098",
    "evotext/Wordle-v0": "acfac573b198c43c",
}


def make(env_id: str, **options: Any) -> TextEnv[Any]:
    env = gymnasium.make(f"envs:{env_id}", **options)
    assert isinstance(env, TextEnv)  # no wrapper: thousands of them are stepped
    return env


def play(env: TextEnv[Any], answers: Iterable[str]) -> float:
    """Go on with the running episode to its end, by these answers, and return the sum of its rewards."""
    total, terminated = 0.0, False
    rest = iter(answers)
    while not terminated:
        _, reward, terminated, truncated, _ = env.step(next(rest))
        assert truncated is False
        total += reward
    return total


def text_config(env_id: str) -> dict[str, Any]:
    """The task's YAML."""
    for path in CONFIGS.glob("*.yaml"):
        if OmegaConf.load(path).get("id", "???") == f"evotext.envs:{env_id}":
            resolved = OmegaConf.to_container(compose("check_env", [f"env={path.stem}"]).env, resolve=True)
            assert isinstance(resolved, dict)
            return {str(key): value for key, value in resolved.items()}
    raise AssertionError(f"no YAML in {CONFIGS} has the id evotext.envs:{env_id}")


def test_tasks_are_registered() -> None:
    assert {"evotext/Sort-v0", "evotext/Countdown-v0", "evotext/Recall-v0"} <= set(IDS)


@pytest.mark.parametrize("env_id", IDS)
class TestGymnasium:
    def test_check_env_has_no_complaint(self, env_id: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_env(make(env_id))
            check_env(make(env_id, render_mode="ansi"))

    def test_types_are_pythons_own(self, env_id: str) -> None:
        env = make(env_id)
        observation, info = env.reset(seed=0)
        assert type(observation) is str and type(info["instructions"]) is str
        observation, reward, terminated, truncated, info = env.step("")
        kinds = [type(value) for value in (observation, reward, terminated, truncated, info)]
        assert kinds == [str, float, bool, bool, dict]

    def test_infos_are_not_shared(self, env_id: str) -> None:
        env = make(env_id)
        _, info = env.reset(seed=0)
        info["instructions"] = "changed"
        assert env.reset(seed=0)[1]["instructions"] != "changed"

    @pytest.mark.parametrize("mode", ["sync", "async"])
    def test_vectors(self, env_id: str, mode: str) -> None:
        memory = {"shared_memory": False} if mode == "async" else {}
        vector = gymnasium.make_vec(f"envs:{env_id}", num_envs=2, vectorization_mode=mode, vector_kwargs=memory)
        try:
            observations, _ = vector.reset(seed=[5, 6])  # type: ignore[arg-type]
            assert observations == tuple(make(env_id).reset(seed=seed)[0] for seed in (5, 6))
            following, rewards, *_ = vector.step(("", "x"))
            assert len(following) == 2 and rewards.tolist() == [0.0, 0.0]
        finally:
            vector.close()

    def test_a_step_out_of_order_is_an_error(self, env_id: str) -> None:
        env = make(env_id)
        with pytest.raises(ResetNeeded, match="call reset"):
            env.step("")
        env.reset(seed=0)
        play(env, repeat(""))
        with pytest.raises(ResetNeeded, match="call reset"):
            env.step("")

    def test_an_answer_that_is_no_text_is_an_error_and_no_turn(self, env_id: str) -> None:
        env = make(env_id)
        env.reset(seed=0)
        with pytest.raises(TypeError, match="expected a str as the answer, got int"):
            env.step(3)  # type: ignore[arg-type]
        assert env.turn == 0

    def test_copies_are_independent(self, env_id: str) -> None:
        env = make(env_id)
        env.reset(seed=3)
        for twin in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
            play(twin, repeat(""))
            assert env.turn == 0
            assert env.reset()[0] == twin.reset()[0]
            env.reset(seed=3)


@pytest.mark.parametrize("env_id", IDS)
class TestInstances:
    def test_a_seed_and_a_split_decide_the_instance(self, env_id: str) -> None:
        a, b = make(env_id), make(env_id)
        drawn = set()
        for seed in range(50):
            for split in SPLITS:
                options = {"split": split}
                a.reset(seed=seed, options=options), b.reset(seed=seed, options=options)
                assert a.instance == b.instance
                drawn.add(a.instance)
        assert len(drawn) > 50

    def test_a_version_has_always_the_same_instances(self, env_id: str) -> None:
        env = make(env_id)
        said = [env.reset(seed=seed, options={"split": split})[0] for split in ("train", "test") for seed in range(64)]
        found = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]
        assert found == INSTANCES.get(env_id, found), "record a new version's; an old one's never change"

    def test_splits_are_disjoint_and_a_quarter_is_test(self, env_id: str) -> None:
        env = make(env_id)
        contents: dict[str, set[str]] = {split: set() for split in SPLITS}
        for split in SPLITS:
            for seed in range(1000):
                env.reset(seed=seed, options={"split": split})
                contents[split].add(env.content(env.instance))
                assert split_of(env.content(env.instance)) == split
        assert contents["train"].isdisjoint(contents["test"])
        rng = np.random.default_rng(0)
        drawn = [instance for _ in range(2000) if (instance := env.draw(rng)) is not None]
        assert 0.2 < np.mean([split_of(env.content(instance)) == "test" for instance in drawn]) < 0.3

    def test_what_is_remembered_changes_nothing(self, env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """An instance that was seen before comes with the generator in the same state as one that was not."""

        def episodes(env: TextEnv[Any]) -> list[tuple[Any, Mapping[str, Any]]]:
            found = []
            for seed in (7, 8, 7, None, 8, None, 7):
                env.reset(seed=seed, options={"split": "test"})
                found.append((env.instance, env.np_random.bit_generator.state))
            return found

        monkeypatch.setattr("envs.text_env._known", {})
        cold = episodes(make(env_id))
        assert episodes(make(env_id)) == cold
        monkeypatch.setattr("envs.text_env.MOST_KNOWN", 0)
        monkeypatch.setattr("envs.text_env._known", {})
        assert episodes(make(env_id)) == cold

    def test_a_generator_set_from_outside_is_left_alone(self, env_id: str) -> None:
        env = make(env_id)
        env.reset(seed=1)
        theirs = np.random.default_rng(5)
        env.np_random = theirs
        before = theirs.bit_generator.state
        env.reset(seed=1)
        assert theirs.bit_generator.state == before and env.np_random_seed == 1

    def test_a_seed_that_gymnasium_rejects_is_rejected_every_time(self, env_id: str) -> None:
        env = make(env_id)
        env.reset(seed=1)
        for _ in range(2):
            with pytest.raises(gymnasium.error.Error, match="Seed must be"):
                env.reset(seed=1.0)  # type: ignore[arg-type]

    def test_interleaved_environments_do_not_disturb_each_other(self, env_id: str) -> None:
        def episode(env: TextEnv[Any]) -> list[str]:
            seen, terminated = [env.reset()[0]], False
            while not terminated:
                observation, _, terminated, _, _ = env.step("ok")
                seen.append(observation)
            return seen

        alone = []
        for seed in (1, 2):
            env = make(env_id)
            env.reset(seed=seed)
            alone.append([episode(env) for _ in range(5)])
        first, second = make(env_id), make(env_id)
        first.reset(seed=1), second.reset(seed=2)
        together: list[list[list[str]]] = [[], []]
        for _ in range(5):
            together[0].append(episode(first))
            together[1].append(episode(second))
        assert together == alone

    @pytest.mark.parametrize("options", [{"split": "validation"}, {"split": None}, {"splitt": "test"}])
    def test_unknown_options_are_errors(self, env_id: str, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="expected .* got"):
            make(env_id).reset(seed=0, options=options)


@pytest.mark.parametrize("env_id", IDS)
class TestRewards:
    def test_garbage_is_not_paid(self, env_id: str) -> None:
        env = make(env_id)
        for split in SPLITS:
            for seed in range(20):
                for text in GARBAGE:
                    env.reset(seed=seed, options={"split": split})
                    assert play(env, repeat(text)) == 0, (env.instance, text)

    def test_the_prompt_is_not_paid(self, env_id: str) -> None:
        """Neither the observation nor the instructions, with the example in them, earn anything."""
        env = make(env_id)
        assert env.example[-1] in make(env_id).instructions
        for seed in range(100):
            observation, info = env.reset(seed=seed)
            assert env.score(env.instance, env.example) == 0
            for text in (observation, info["instructions"]):
                env.reset(seed=seed)
                assert play(env, repeat(text)) == 0

    def test_only_white_space_is_forgiven(self, env_id: str) -> None:
        """White space around a right answer is forgiven; a second answer, a repetition, punctuation and digits are not."""
        env = make(env_id)
        rng = np.random.default_rng(0)
        solved = 0
        for _ in range(100):
            answers = [answer for _, answer in env.demonstrate(rng)]
            instance = env.instance
            if env.score(instance, answers) <= 0:
                continue
            solved += 1
            right = answers[-1]
            for good in (f" {right}", f"{right}\n", f"\r\n\t {right}  \n\n"):
                assert env.score(instance, [*answers[:-1], good]) == 1, (instance, good)
            before = () if env.reads_the_end else (f"x{right}", f"0{right}", f"\u00a0{right}")
            for bad in (f"{right} {right}", f"{right}\n{right}", right * 2, f"{right}.", f"{right}\x00", f"{right}0",
                        f"{right} {env.example[-1]}", f"`{right}`", *before):  # fmt: skip
                assert env.score(instance, [*answers[:-1], bad]) == 0, (instance, bad)
        assert solved > 5

    def test_a_random_legal_answer_rarely_succeeds(self, env_id: str) -> None:
        """A random answer is legal, too: of the length and the characters that the demonstrations have."""
        env = make(env_id)
        rng = np.random.default_rng(0)
        returns = []
        for _ in range(200):
            env._start(env._draw(rng, "test"))
            returns.append(play(env, iter(lambda: env.legal(rng), None)))
        assert np.mean(returns) <= 0.2

    def test_an_open_loop_answer_rarely_succeeds(self, env_id: str) -> None:
        """The best of many fixed answers, each a demonstrator's to some instance, solves hardly any other."""
        env = make(env_id)
        rng = np.random.default_rng(0)
        episodes = [[answer for _, answer in env.demonstrate(rng)] for _ in range(300)]
        instances = [env._draw(rng, "test") for _ in range(100)]
        assert max(np.mean([env.score(i, answers) for i in instances]) for answers in episodes) <= 0.1


@pytest.mark.parametrize("env_id", IDS)
class TestDemonstrations:
    def test_replayed_they_give_the_same_conversation_of_a_training_instance(self, env_id: str) -> None:
        env = make(env_id)
        rng = np.random.default_rng(0)
        for _ in range(200):
            turns = env.demonstrate(rng)
            assert split_of(env.content(env.instance)) == "train"
            observation = env._start(env.instance)
            for said, answer in turns:
                assert said == observation
                observation, _, terminated, _, _ = env.step(answer)
            assert terminated

    def test_a_perfect_imitator_has_headroom(self, env_id: str) -> None:
        """Success is 0.1 to 0.3, sampling at temperature 1 and choosing the likeliest character each time."""
        env = make(env_id)
        rng = np.random.default_rng(0)
        sampled, greedy = [], []
        for _ in range(200):
            instance = env._draw(rng, "train")
            imitations: Counter[tuple[str, ...]] = Counter()
            for _ in range(40):
                imitations[imitation(env, instance, rng)] += 1
            scores = {answers: env.score(instance, answers) for answers in imitations}
            sampled.append(sum(scores[answers] * n for answers, n in imitations.items()) / imitations.total())
            greedy.append(scores[likeliest(imitations)])
        assert 0.1 <= np.mean(sampled) <= 0.3
        assert 0.1 <= np.mean(greedy) <= 0.3


def imitation(env: TextEnv[Any], instance: Any, rng: np.random.Generator) -> tuple[str, ...]:
    """The demonstrator's answers in one episode on `instance`."""
    env._start(instance)
    answers, terminated = [], False
    while not terminated:
        answers.append(env.imitate(rng))
        terminated = env.step(answers[-1])[2]
    return tuple(answers)


def likeliest(imitations: Counter[tuple[str, ...]]) -> tuple[str, ...]:
    """Return what greedy decoding of their distribution gives: each character the most frequent one after those before it."""
    texts = Counter({"\n".join(answers) + "\n": count for answers, count in imitations.items()})
    prefix = ""
    while len(texts) > 1:
        following: Counter[str] = Counter()
        for text, count in texts.items():
            following[text[len(prefix)]] += count
        prefix += following.most_common(1)[0][0]
        texts = Counter({text: count for text, count in texts.items() if text.startswith(prefix)})
    return tuple(next(iter(texts)).removesuffix("\n").split("\n"))


@pytest.mark.parametrize("env_id", IDS)
class TestPresentation:
    def test_the_observation_is_terse(self, env_id: str) -> None:
        env = make(env_id)
        for seed in range(20):
            observation, info = env.reset(seed=seed)
            assert 0 < len(observation) <= 48 < len(info["instructions"]) < 800
            assert observation not in info["instructions"]

    def test_render_shows_an_episode_without_control_characters(self, env_id: str) -> None:
        env = make(env_id, render_mode="ansi")
        assert "no episode" in str(env.render())
        observation, _ = env.reset(seed=0)
        play(env, repeat("\x1b[31mred\n" + "z" * 10**4))
        shown = str(env.render())
        assert (
            all(line in shown for line in observation.split("\n"))
            and "\\x1b[31mred\\n" in shown
            and "return 0" in shown
        )
        assert all(line.isprintable() and len(line) < 300 for line in shown.splitlines())
        assert make(env_id).render() is None

    def test_docstring_has_gymnasiums_headings(self, env_id: str) -> None:
        text = type(make(env_id)).__doc__ or ""
        positions = [text.find(f"{heading}:\n") for heading in HEADINGS]
        assert -1 not in positions and positions == sorted(positions)

    @pytest.mark.parametrize("options", [{"render_mode": "human"}, {"colour": 3}])
    def test_unknown_arguments_are_errors(self, env_id: str, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(options))):
            type(make(env_id))(**options)


@pytest.mark.parametrize("env_id", IDS)
class TestConfiguration:
    COMMON = (
        "_target_",
        "name",
        "id",
        "max_new_tokens",
        "max_turns",
        "success_return",
        "strict",
        "step_seconds",
        "workers",
    )

    def test_yaml_gives_the_constructors_defaults(self, env_id: str) -> None:
        config = text_config(env_id)
        options = {key: value for key, value in config.items() if key not in self.COMMON}
        assert dict(make(env_id, **options)._difficulty) == options == dict(make(env_id)._difficulty)

    def test_limits_admit_every_demonstration(self, env_id: str) -> None:
        config = text_config(env_id)
        env = make(env_id)
        rng = np.random.default_rng(0)
        for _ in range(200):
            turns = env.demonstrate(rng)
            assert len(turns) <= config["max_turns"]
            assert max(len(answer) for _, answer in turns) + 1 <= config["max_new_tokens"]

    def test_the_threshold_is_the_greatest_return(self, env_id: str) -> None:
        env = make(env_id)
        rng = np.random.default_rng(0)
        returns = set()
        for _ in range(200):
            answers = [answer for _, answer in env.demonstrate(rng)]
            returns.add(env.score(env.instance, answers))
        assert env.spec is not None and max(returns) == env.spec.reward_threshold


def test_demonstrations_are_a_pure_function_of_count_and_seed() -> None:
    for task in (None, "envs:evotext/Hanoi-v0"):
        first = list(envs.demonstrations(60, 3, task=task))
        assert list(envs.demonstrations(60, 3, task=task)) == first
        assert list(envs.demonstrations(30, 3, task=task)) == first[:30]
        assert list(envs.demonstrations(60, 4, task=task)) != first


@pytest.mark.parametrize("task", [None, "envs:evotext/Sort-v0", "evotext/Recall-v0", "mine:Own-v0"])
def test_the_core_course_serves_its_tasks_and_foreign_ones(task: str | None) -> None:
    kinds = Counter(conversation[0][0].split()[0] for conversation in envs.demonstrations(60, 3, task=task))
    assert kinds == {"make": 9, "key": 9, "sort": 42}  # as each task's `practice` says


def test_the_core_course_is_what_it_was() -> None:
    """Recorded results stand on a model that was warmed up on exactly these conversations."""
    text = json.dumps(list(envs.demonstrations(256, 0, task=None)))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "5cd7e82198910821"


@pytest.mark.parametrize("env_id", sorted(set(IDS) - set(CORE)))
def test_every_other_task_has_a_course_of_its_own(env_id: str) -> None:
    env = make(env_id)
    rng = np.random.default_rng(5)
    assert list(envs.demonstrations(8, 5, task=f"envs:{env_id}")) == [env.demonstrate(rng) for _ in range(8)]


def test_gym_yaml_is_named_after_its_id() -> None:
    config = OmegaConf.merge(OmegaConf.load(CONFIGS / "gym.yaml"), {"id": "my_module:Mine-v0"})
    assert config.name == "my_module:Mine-v0"

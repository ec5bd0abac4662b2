"""Lists of tasks on the command line and from Python: which files they bring in, and what is refused."""

from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from evotext.api.arguments import sort_arguments
from evotext.cli.composing import compose_checked
from evotext.cli.errors import ConfigError
from evotext.cli.several_tasks import expand_tasks
from evotext.cli.targets import build
from evotext.cli.words import Root, check_overrides
from evotext.folders import FOLDERS
from evotext.rollouts.mixture import Mixture


@pytest.fixture(autouse=True)
def _no_hydra_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("env=[a,b]", ["env=mixture", "+env@env.tasks.a='a'", "+env@env.tasks.b='b'"]),
        ("env=[a,a]", ["env=mixture", "+env@env.tasks.a='a'"]),
        ("env.tasks=[a]", ["+env@env.tasks.a='a'"]),
        ("++env.tasks={a:1,b:2.5}", ["+env@env.tasks.a='a'", "+env@env.tasks.b='b'", "env.shares={a:1,b:2.5}"]),
        ("env.tasks={x:a,y:a}", ["+env@env.tasks.x='a'", "+env@env.tasks.y='a'"]),
        ("evaluation.also=[a,b]", ["+env@evaluation.also.a='a'", "+env@evaluation.also.b='b'"]),
        ("++evaluation.also={far:a}", ["+env@evaluation.also.far='a'"]),
        ("evaluation.also=[]", []),
        ("env=a", ["env=a"]),
        ("env=a,b", ["env=a,b"]),
        ("env=[a", ["env=[a"]),  # which Hydra complains of
        ("env=[a],b", ["env=[a],b"]),
        ("seed=[a,b]", ["seed=[a,b]"]),
        ("-m", ["-m"]),
    ],
)
def test_words_become_hydras(word: str, expanded: list[str]) -> None:
    assert expand_tasks(["x=1", word]) == ["x=1", *expanded]


def test_each_task_comes_with_its_own_file_and_takes_overrides() -> None:
    words = ["env=mixture", "env.tasks={sort:0.75,recall:0.25}", "env.tasks.recall.delay=4", "algorithm=grpo"]
    config = compose_checked("config", words).config
    alone = {
        name: OmegaConf.to_container(compose_checked("config", [f"env={name}"]).config.env)
        for name in ("sort", "recall")
    }
    assert OmegaConf.to_container(config.env.tasks) == alone | {"recall": alone["recall"] | {"delay": 4}}  # type: ignore[operator]
    assert config.algorithm.max_tokens == config.env.tasks.sort.max_new_tokens == 16
    mixture = build(config, "env")
    assert isinstance(mixture, Mixture) and mixture.shares == {"sort": 0.75, "recall": 0.25}
    assert mixture.name == "sort+recall" and [task.name for task in mixture.parts] == ["sort", "recall"]
    assert mixture.parts[1].options == {"delay": 4, "length": 2}


def test_a_task_may_come_twice_and_in_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    lines = ["defaults: [mixture, recall@tasks.near, recall@tasks.far, _self_]", "tasks: {far: {delay: 9}}"]
    (tmp_path / "env" / "both.yaml").write_text("\n".join([*lines, "shares: {near: 1, far: 3}", "name: both"]))
    task = build(compose_checked("config", ["env=both", f"hydra.searchpath=[{tmp_path}]"]).config, "env")
    assert task.name == "both" and task.shares == {"near": 0.25, "far": 0.75}
    assert [part.options["delay"] for part in task.parts] == [2, 9]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["env=mixture"], "env.tasks: expected a value, got none"),
        (["env=[sort,nope]"], "expected .* got 'nope'"),
        (["env=[3]"], "env: expected names of tasks, got 3"),
        (["env.tasks={sort:a,recall:2}"], "env.tasks: expected names of tasks, got 2"),
        (["evaluation.also={far:3}"], "evaluation.also: expected names of tasks, got 3"),
        (["evaluation.also=[nope]"], "expected .* got 'nope'"),
        (["env=[sort]", "env.shares.nope=1"], "nope"),
        (
            ["env=mixture", "env.tasks={sort:1,recall:-1}"],
            "env.shares: expected a number greater than 0, got -1",
        ),
        (["env=[sort,recall]", "env.max_new_tokens=3"], "env.max_new_tokens: expected the tasks' greatest, 16, got 3"),
        (["env=[sort,recall]", "env.tasks.recall.dellay=3"], "dellay"),
    ],
)
def test_mistakes_are_one_line(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        build(compose_checked("config", words).config, "env")
    assert "\n" not in str(raised.value)


def test_a_sweep_over_lists_is_refused_where_hydra_would_mix_their_keys() -> None:
    root = Root.read(FOLDERS["conf"] / "config.yaml")
    with pytest.raises(ConfigError, match="env: expected one task, or one list of tasks for all runs of a sweep"):
        check_overrides(["env=[sort,recall],hanoi"], root, multirun=True)
    check_overrides(["env=sort,recall", "+env@env.tasks.a=sort"], root, multirun=True)


def test_from_python() -> None:
    def words(env: object, **overrides: object) -> list[str]:
        none = dict.fromkeys(("model", "tokenizer", "prompts", "algorithm"))
        return list(sort_arguments(**none, env=env, overrides=overrides).words)

    shared = {"name": ["sort", "recall"], "shares": {"sort": 3, "recall": 1}, "tasks": {"recall": {"delay": 4}}}
    task = build(compose_checked("config", words(shared)).config, "env")
    assert task.shares == {"sort": 0.75, "recall": 0.25} and task.parts[1].options["delay"] == 4
    assert build(compose_checked("config", words(("sort", "recall"))).config, "env").shares == {
        "sort": 0.5,
        "recall": 0.5,
    }
    with pytest.raises(ConfigError, match="env: expected names of tasks in a list, got 'sotr'; did you mean sort?"):
        words(["sotr"])

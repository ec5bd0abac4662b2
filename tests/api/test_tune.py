"""`tune`: the very run that the command makes, with objects where words do not reach, and resumable when it is stopped."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import evotext
from envs.prompts import divided
from envs.sort import Sort
from evotext import tune
from evotext.api.result import Result
from evotext.cli.composing import compose
from evotext.cli.errors import ConfigError
from evotext.cli.targets import build
from evotext.run_folder.configuration import read_config
from tests.runner.small_runs import lines_of, weights_of
from tests.scripts_in_process import status_of
from tests.small_models import small_model

MODEL = {"name": "tiny", "steps": 0, "hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 2}
SMALL: dict[str, Any] = {
    "threads": 1,
    "tracker": "none",
    "progress": False,
    "algorithm": {"name": "grpo", "prompts": 2, "group_size": 4},
    "budget": {"unit": "episodes", "limit": 32},
    "evaluation": {"episodes": 8, "points": 2, "samples": 0},
}
PROMPTS = [f"say {i}" for i in range(40)]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def tuned(folder: str, **arguments: Any) -> Result:
    """A small run of a model object on prompts, whose rewards vary."""
    model = small_model("llama", torch.float32)
    given: dict[str, Any] = {"model": model.network, "tokenizer": model.tokenizer, "folder": folder}
    if "env" not in arguments:
        given |= {"env": {"name": vowels, "max_new_tokens": 6}, "prompts": PROMPTS}
    if "resume" in arguments:
        del given["folder"]
    return tune(**SMALL | given | arguments)


def vowels(prompt: str, answer: str) -> float:
    return len(answer) / 6


@pytest.mark.slow
def test_it_is_the_run_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Mapping[str, Any]] = []
    result = tune(
        **SMALL | {"model": MODEL, "env": {"name": "sort", "digits": 3}, "folder": "one", "callbacks": seen.append}
    )
    words = (result.folder / ".hydra" / "overrides.yaml").read_text()
    assert (
        status_of("train", *[line[2:] for line in words.splitlines()], "hydra.run.dir=two", monkeypatch=monkeypatch)
        == 0
    )
    assert read_config(Path("one")) == read_config(Path("two"))
    assert weights_of(Path("one")) == weights_of(Path("two"))
    assert lines_of(Path("one")) == lines_of(Path("two"))
    assert status_of("train", "replay=one", "hydra.run.dir=three", monkeypatch=monkeypatch) == 0
    assert weights_of(Path("one")) == weights_of(Path("three"))

    summary = json.loads((result.folder / "summary.json").read_text())
    assert (result.before, result.success) == (summary["eval"]["success_before"], summary["eval"]["success_after"])
    assert result.cost == summary["cost"] and result.cost["episodes"] == 32
    assert (result.record.env, result.record.algorithm, result.record.status) == ("sort", "grpo", "completed")
    assert [line["kind"] for line in seen] == ["eval", "train", "train", "eval", "train", "train", "eval"]
    saved = type(result.model).from_pretrained(result.folder / "model")
    assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), result.model.parameters(), strict=True))
    assert result.tokenizer.decode(result.tokenizer.encode("sort 123"), skip_special_tokens=True) == "sort 123"


def test_left_out_arguments_are_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of Hydra stays behind, for a program may use it itself."""
    made: list[Any] = []

    def assembled(config: Any, **_: Any) -> Any:
        made.append(config)
        raise ConfigError("far enough")

    monkeypatch.setattr("evotext.api.tune.assembled", assembled)
    GlobalHydra.instance().clear()
    before = HydraConfig.instance().cfg
    with pytest.raises(ConfigError, match="far enough"):
        tune()
    assert made == [compose("config")]
    assert HydraConfig.instance().cfg is before and not GlobalHydra.instance().is_initialized()
    assert not [path for path in Path("runs").rglob("*") if path.is_file()]


def test_importing_evotext_stays_light() -> None:
    code = (
        "import evotext, sys; print([m for m in ('torch', 'transformers', 'hydra', 'gymnasium') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="module 'evotext' has no attribute 'tuner'"):
        evotext.tuner  # noqa: B018
    assert evotext.tune is tune


def test_a_model_object_is_tuned_in_place() -> None:
    model = small_model("llama", torch.float32)
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    result = tuned("one", model=model.network, tokenizer=model.tokenizer)
    assert result.model is model.network and result.tokenizer is model.tokenizer
    assert any(not torch.equal(before[name], p) for name, p in model.network.named_parameters())
    assert (result.success, result.before) == (None, None)  # no return is a success unless one is told
    assert result.record.model == "LlamaForCausalLM" and result.record.env == "vowels"


def test_trained_on_validated_with_and_held_out_prompts_are_disjoint() -> None:
    splits = divided(PROMPTS)
    answered: list[str] = []
    measured: set[str] = set()
    trained: set[str] = set()

    def reward(prompt: str, answer: str) -> float:
        answered.append(prompt)
        return len(answer) / 6

    def sort_out(line: Mapping[str, Any]) -> None:
        (measured if line["kind"] == "eval" else trained).update(answered)
        answered.clear()

    tuned(
        "one",
        env={"name": reward, "success_return": 1.0},
        prompts=PROMPTS,
        callbacks=sort_out,
        evaluation={"episodes": 32, "points": 1, "samples": 0, "split": "validation"},
    )
    assert trained and trained <= set(splits["train"])
    # The starting policy, which drift is measured from, answers held-out prompts.
    assert measured > set(splits["validation"])
    assert measured <= {*splits["validation"], *splits["test"]}


def test_a_reward_in_named_parts() -> None:
    def reward(prompt: str, answer: str) -> dict[str, float]:
        return {"brief": 0.5 * (len(answer) < 3), "vowels": sum(c in "aeiou" for c in answer) / 12}

    result = tuned("one", env={"name": reward, "max_new_tokens": 6}, prompts=PROMPTS)
    lines = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        eval_, whole = ("eval/", "eval/return") if line["kind"] == "eval" else ("", "return_mean")
        assert line[f"{eval_}reward/brief"] + line[f"{eval_}reward/vowels"] == pytest.approx(line[whole])
    assert lines[0]["eval/return"] > 0


class Steps(gymnasium.Env[str, str]):
    """An environment of the caller's, with an argument and no registration."""

    observation_space = action_space = Sort().observation_space

    def __init__(self, length: int = 1) -> None:
        self.length = length

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = self.length
        return "go", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return "on", float(len(action)), not self.left, False, {}


@pytest.mark.parametrize(
    ("env", "name", "turns"),
    [
        (Steps, "Steps", 1),
        (Steps(length=2), "Steps", 2),
        ({"name": Steps, "length": 2}, "Steps", 2),
        (gymnasium.make("FrozenLake-v1", render_mode="ansi"), "FrozenLakeEnv", None),
        ({"name": "FrozenLake-v1", "render_mode": "ansi"}, "FrozenLake-v1", None),
        ("evotext.envs:evotext/Sort-v0", "evotext.envs:evotext/Sort-v0", 1),
    ],
)
def test_environments_of_every_kind(env: Any, name: str, turns: int | None) -> None:
    settings = {"max_new_tokens": 3, "max_turns": 3}
    result = tuned("one", env={**(env if isinstance(env, dict) else {"name": env}), **settings})
    assert result.record.env == name
    assert turns is None or result.cost["env_steps"] == turns * 32
    assert not [id for id in gymnasium.registry if id.startswith("given/")]


class Algorithm:
    """An algorithm of the caller's, which learns as GRPO does."""

    def start(self, model: Any, seed: int) -> Any:
        return build(compose("config", ["algorithm=grpo", "algorithm.prompts=4"]), "algorithm").start(model, seed)


def test_an_algorithm_object() -> None:
    result = tuned("one", algorithm=Algorithm())
    assert result.record.algorithm == "Algorithm" and result.cost["updates"] == 1
    assert read_config(result.folder)["algorithm"] == {"_target_": "tests.api.test_tune.Algorithm"}


def test_lora_is_merged() -> None:
    pytest.importorskip("peft")
    result = tuned("one", adapter={"name": "lora", "rank": 2})
    names = {name for name, _ in small_model("llama", torch.float32).network.named_parameters()}
    assert {name for name, _ in result.model.named_parameters()} == names


@pytest.mark.slow
def test_a_callback_ends_the_run_measured_and_resumable() -> None:
    whole = tuned("whole")
    part = tuned("part", callbacks=[lambda line: None, lambda line: line["generation"] == 3])
    assert (part.record.status, part.record.reason) == ("interrupted", "stopped by a callback")
    assert part.record.points[-1].generation == 3 and part.cost["episodes"] == 24
    with pytest.raises(ConfigError, match=r"^resume: .* got seed=1 \(was 0\)"):
        tuned("part", resume="part", seed=1)
    rest = tuned("part", resume="part")
    assert rest.record.status == "completed" and weights_of(rest.folder) == weights_of(whole.folder)
    again = tuned("part", resume="part")  # nothing is left to do
    assert weights_of(again.folder) == weights_of(whole.folder) and again.cost == rest.cost
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), whole.model.parameters(), strict=True))


@pytest.mark.slow
def test_ctrl_c_lets_the_generation_end_and_leaves_a_run_to_go_on_with() -> None:
    whole = tuned("whole")

    def press(line: Mapping[str, Any]) -> None:
        if line["kind"] == "train" and line["generation"] == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"stopped by a signal; to go on: tune\(..., resume='part'\)"):
        tuned("part", callbacks=press)
    assert json.loads(Path("part/summary.json").read_text())["status"] == "interrupted"
    assert weights_of(tuned("part", resume="part").folder) == weights_of(whole.folder)


def test_what_a_callback_raises_is_the_callers() -> None:
    def fail(line: object) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        tuned("one", callbacks=fail)
    assert json.loads(Path("one/summary.json").read_text())["status"] == "failed"


def test_the_command_cannot_repeat_a_run_of_objects(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tuned("one")
    assert status_of("train", "resume=one", monkeypatch=monkeypatch) == 2
    told = capfd.readouterr().err
    assert told.startswith(
        "error: resume: expected a run that words describe, got one, for which evotext.tune was given"
    )
    assert told.endswith("call tune again with the same arguments and resume='one'\n") and told.count("\n") == 1
    assert status_of("evaluate", "run=one", monkeypatch=monkeypatch) == 2
    told = capfd.readouterr().err
    assert told.startswith("error: run: expected a run whose task has a name, got 'one'") and told.count("\n") == 1
    small = ("evaluation.episodes=4", "evaluation.samples=0", "threads=1", "env.max_new_tokens=6")
    assert status_of("evaluate", "run=one", "env=sort", *small, monkeypatch=monkeypatch) == 0


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"env": "srot"}, "env: expected the name of a task or an id of Gymnasium's, got 'srot'; did you mean sort?"),
    ({"env": "Nope-v3"}, "env.id: cannot make 'Nope-v3'"),
    ({"env": "gym"}, "env.id: expected a value, got none"),
    ({"env": 3}, "env: expected one of "),
    ({"env": vowels}, "prompts: expected a list of prompts beside a reward function"),
    ({"env": vowels, "prompts": "abc"}, "prompts: expected a list of texts, got one text"),
    ({"env": vowels, "prompts": ["a", "a"]}, "prompts: expected at least 3 different ones"),
    ({"env": "sort", "prompts": PROMPTS}, "prompts: expected only beside a reward function as env, got env='sort'"),
    ({"env": {"name": "sort", "digits": 99}}, "env.digits: expected a number of at most 15, got 99"),
    ({"env": {"name": "sort", "digts": 3}}, "env: expected a known key, got 'digts'"),
    (
        {"model": "tinny"},
        "model: expected one of hf, random, tiny, untrained, a hub name or a folder, got 'tinny'; did you mean tiny?",
    ),
    ({"model": "/no/such"}, "model.path: expected a folder or a hub name"),
    (
        {"model": 3},
        "model: expected one of hf, random, tiny, untrained, a hub name, a folder or a transformers model, got 3",
    ),
    ({"model": "tiny", "tokenizer": 3}, "tokenizer: expected only beside a model object"),
    ({"algorithm": "grop"}, "algorithm: expected "),
    ({"algorithm": Algorithm}, "algorithm: expected one of "),
    (
        {"algorithm": {"name": "grpo", "grop_size": 1}},
        "algorithm: expected a known key, got 'grop_size'; did you mean group_size",
    ),
    ({"algorithm": {"name": "grpo", "group_size": 1}}, "algorithm.group_size: expected"),
    ({"algorithm": Algorithm(), "algorithm.sigma": 3}, "algorithm.sigma: expected no setting beside an object"),
    ({"algorithm": {"name": Algorithm(), "sigma": 3}}, "algorithm.sigma: expected no setting beside an object"),
    ({"evaluaton": {"episodes": 3}}, "configuration: expected a known key, got 'evaluaton'; did you mean evaluation?"),
    ({"budget": "quik"}, "budget: expected episodes, flops, generated_tokens, quick, seconds or updates, got 'quik'"),
    ({"budget": {"unit": "lines", "limit": 3}}, "budget.unit: expected "),
    ({"seed": -1}, "seed: expected a number of at least 0, got -1"),
    ({"callbacks": [3]}, "callbacks: expected functions"),
    ({"folder": "a", "resume": "b"}, "folder: expected none beside resume"),
    ({"folder": "/proc/x"}, "folder: expected one that can be written, got '/proc/x'"),
    ({"resume": "nowhere"}, "resume: expected the folder of a run, got 'nowhere'"),
    ({"device": "gpu"}, "device: expected auto, cpu, cuda, xpu, mps or one with its number, as cuda:0, got 'gpu'"),
    (
        {"algorithm": {"name": "eggroll", "optimizer": {"_target_": "os.system"}}},
        "algorithm.optimizer._target_: expected",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[str(i) for i in range(len(MISTAKES))])
def test_a_mistake_is_one_line_that_names_the_argument(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        tune(**{"progress": False, "model": "random", **arguments})
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    assert not [path for path in Path().rglob("*") if path.is_file()]


def test_a_folder_with_a_run_is_left_alone() -> None:
    tuned("one")
    before = weights_of(Path("one"))
    with pytest.raises(ConfigError, match=r"^folder: expected one without a run, got 'one'; .* by resume='one'$"):
        tuned("one")
    assert weights_of(Path("one")) == before


def test_a_model_object_needs_its_tokenizer() -> None:
    with pytest.raises(ConfigError, match="^tokenizer: expected the tokenizer of the model object"):
        tuned("one", tokenizer=None)
    with pytest.raises(ConfigError, match="^model.dtype: expected no setting beside an object"):
        tuned("one", **{"model.dtype": "float32"})


def test_an_environment_that_cannot_be_copied() -> None:
    env = Steps()
    env.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(
        ConfigError, match=r"^env: expected an environment that copy.deepcopy can copy, got a Steps \(.*lock"
    ):
        tuned("one", env=env)

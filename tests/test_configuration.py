"""Whatever is written into any key of the whole configuration: a run that could start, or one clear line and status 2."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from evotext.runner.loop import Run
from tests.scripts_in_process import status_of

CONF = Path(__file__).resolve().parent.parent / "conf"
# Environments of other packages, which have their own say.
OTHERS = ("gym", "reasoning_gym", "textarena", "dataset", "gsm8k", "math500", "openenv", "verifiers")
GROUPS = {
    group: [f"{group}={file.stem}" for file in sorted((CONF / group).glob("*.yaml")) if file.stem not in OTHERS]
    for group in ("adapter", "algorithm", "env", "budget", "pruner", "stopper")
}
# Wrong types, numbers at and beyond every edge, contradictions, text that is no YAML, interpolations, holes.
VALUES = [
    *(
        "nan",
        "inf",
        "-inf",
        "-1",
        "0",
        "1",
        "2",
        "3",
        "7",
        "-0.0",
        "0.5",
        "1.5",
        "1e-30",
        "1e30",
        "1e308",
        "9" * 25,
        "-1" + "0" * 19,
    ),
    *(
        "null",
        '""',
        "text",
        "'a b'",
        "true",
        "false",
        "[]",
        "[1,2]",
        "[a]",
        "{}",
        "{a:1}",
        "[[1]]",
        "???",
        '"\\n"',
        "é",
        "1_000",
    ),
    *('"${nothing}"', '"${seed}"', '"${oc.env:NO_SUCH}"', "2147483648", "65536", "../x", "/", "None", "0x10"),
]
LEFT_OUT = ("hydra", "debug", "resume")  # Hydra's own; whether tracebacks are shown; another run's configuration


def keys_of(words: list[str]) -> list[str]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values = OmegaConf.to_container(compose("config", words), resolve=False)
    return [key for key in _leaves(values, "") if key.split(".")[0] not in LEFT_OUT]


def _leaves(values: Any, path: str) -> list[str]:
    if not isinstance(values, dict):
        return [path]
    below = [leaf for key, value in values.items() for leaf in _leaves(value, f"{path}.{key}".lstrip("."))]
    return [path, *below] if path else below


@st.composite
def commands(draw: st.DrawFn) -> list[str]:
    """Choices of groups, and one to three strange words about their keys."""
    chosen = ["model=random", "tracker=none", *(draw(st.sampled_from(choices)) for choices in GROUPS.values())]
    key = st.sampled_from(keys_of(chosen))
    value = st.sampled_from(VALUES)
    word = st.one_of(
        st.builds("{}={}".format, key, value),
        st.builds("{}={}".format, key, value),
        st.builds("{}={}".format, key, value),
        st.builds("+{}.unknown={}".format, key, value),
        st.builds("{}x={}".format, key, value),
        st.builds("~{}".format, key),
    )
    return [*chosen, *draw(st.lists(word, min_size=1, max_size=3))]


class Ready(BaseException):
    """Everything is built; the run would start now."""


def ready(_: Run) -> None:
    raise Ready


def without_notes(text: str) -> str:
    """Return what was printed but for the note on model.dtype=auto, which is made once on a machine."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("model.dtype=auto:"))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(words=commands())
def test_any_value_of_any_key_starts_a_run_or_is_one_line(
    words: list[str], tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "train", ready)
        patch.setattr("evotext.cli.assembly.JsonLines", lambda folder: None)  # a run that never starts closes nothing
        try:
            status = status_of("train", *words, f"hydra.run.dir={folder / 'run'}", monkeypatch=patch)
        except Ready:
            return
    errors = without_notes(capfd.readouterr().err)
    assert status == 2, (words, errors)
    assert errors.startswith("error: ") and errors.count("\n") == 1 and len(errors) < 1000, (words, errors)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["algorithm.population=7"],
            "error: algorithm.population: expected an even number since antithetic=true, got 7",
        ),
        (["algorithm.population=" + "9" * 25], "population"),
        (["algorithm=grpo", "algorithm.group_size=1"], "group_size"),
        (["algorithm=ppo", "algorithm.minibatches=1000"], "minibatches"),
        (["algorithm.sigma=nan"], "sigma"),
        (["algorithm.optimizer.lr=inf"], "algorithm.optimizer.lr: expected a number that float32 can hold, got inf"),
        (
            ["algorithm.optimizer.lr=1e300"],
            "algorithm.optimizer.lr: expected a number that float32 can hold, got 1e+300",
        ),
        (["algorithm.optimizer.lr=fast"], "algorithm.optimizer.lr: expected a number, got 'fast'"),
        (["algorithm=ppo", "algorithm.optimizer.lr=fast"], "algorithm.optimizer.lr: expected a number, got 'fast'"),
        (["+algorithm.optimizer.betas=[2,1]"], "algorithm.optimizer.betas: expected another value (Invalid beta"),
        (["algorithm.optimizer._target_=torch.optim.LBFGS"], "algorithm.optimizer: expected one that takes a step"),
        (["algorithm.optimizer._partial_=2"], "algorithm.optimizer._partial_: expected true or false, got 2"),
        (["budget.limit=-1"], "budget.limit"),
        (
            ["env.max_new_tokens=100000000"],
            "env.max_new_tokens: expected fewer than the model's context of 512 tokens, got 100000000",
        ),
        (
            ["env=gym", "env.id=CliffWalking-v1", "+env.render_mode=ansi", "env.wrappers.as_text.nonsense_cost=-1"],
            "env.wrappers.as_text.nonsense_cost: expected a number of at least 0, got -1",
        ),
        (["pruner=median"], "pruner: expected evaluation.split=validation, got test"),
        (["stopper=patience"], "stopper: expected evaluation.split=validation, got test"),
        (["keep=best"], "keep: expected evaluation.split=validation, got test"),
        (["keep=bset"], "keep: expected 'last' or 'best', got 'bset'"),
        (
            ["keep=best", "evaluation.split=validation", "checkpoint.keep=0"],
            "checkpoint.keep: expected at least 1 with",
        ),
        (["evaluation.episodes=1e30"], "evaluation.episodes"),
    ],
)
def test_contradictions_and_huge_numbers_are_named(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Run, "train", ready)
    monkeypatch.setattr("evotext.cli.assembly.JsonLines", lambda folder: None)
    assert status_of("train", "model=random", *words, f"hydra.run.dir={tmp_path / 'run'}", monkeypatch=monkeypatch) == 2
    errors = without_notes(capfd.readouterr().err)
    assert errors.startswith("error: ") and errors.count("\n") == 1 and message in errors

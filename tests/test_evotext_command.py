"""The command `evotext`: its words, its help, its completion, and the scripts that call it in a clone."""

import importlib
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from pydantic import Field

from evotext.cli import settings
from evotext.cli.errors import ConfigError
from evotext.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]


def status(*words: str) -> object:
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as ended:
        main(words)
    GlobalHydra.instance().clear()
    return ended.value.code


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # which commands set, and nothing takes back
    monkeypatch.setattr("sys.argv", ["/usr/bin/evotext"])


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("--help") in (0, None)
    told = capsys.readouterr().out
    assert all(f"\n  {name} " in told for name in COMMANDS)
    assert status() == 2 and capsys.readouterr().out == told


def test_an_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("trian", "seed=1") == 2
    told = capsys.readouterr().err
    assert told.endswith("got 'trian'; did you mean train?\n") and told.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_module_a_script_and_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = name.replace("-", "_")
    script = (ROOT / "scripts" / f"{module}.py").read_text()
    assert f"`evotext {name} ...`" in script and script.endswith("script()\n") and len(script.splitlines()) == 6
    assert callable(importlib.import_module(f"evotext.commands.{module}").main)
    assert status(name, "--help") in (0, None)
    told = capsys.readouterr().out
    assert f"evotext {name} " in told and "Traceback" not in told


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("evotext ", list(COMMANDS)),
        ("evotext flo", ["floors"]),
        ("evotext train algorithm=open", ["algorithm=openai_es"]),
        ("evotext train seed=1 algorithm/perturbation=low", ["algorithm/perturbation=low_rank"]),
        ("evotext train evaluation.spl", ["evaluation.split="]),
        ("evotext benchmark sui", ["suite="]),
        ("evotext compare ru", []),  # the shell completes folders
        ("evotext nothing algorithm=", []),
    ],
)
def test_what_a_line_may_go_on_with(
    line: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert status("-sc", "query=bash") in (0, None)
    assert capsys.readouterr().out.split() == words


def test_the_shell_gets_a_function_for_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COMP_LINE", raising=False)
    assert status("-sc", "install=bash") in (0, None)
    assert capsys.readouterr().out.rstrip().endswith("-F hydra_bash_completion evotext")


class Options(settings.Settings):
    names: Annotated[list[str], settings.Listed] = ["a"]
    counts: Annotated[list[Annotated[int, Field(ge=0)]], settings.Listed] = [1]
    kind: Literal["fast", "slow"] = "slow"
    out: Path | None = None


def test_settings_and_other_words() -> None:
    told, others = settings.read(["x=1", "names=[a, b]", "counts=3,4", "folder", "out=/a=b"], Options, description="")
    assert (told.names, told.counts, told.kind, told.out) == (["a", "b"], [3, 4], "slow", Path("/a=b"))
    assert others == ["x=1", "folder"]
    assert settings.read(["kind=slow", "kind=fast"], Options, description="")[0].kind == "fast", "the last one counts"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("kind=fsat", "kind: expected 'fast' or 'slow', got 'fsat'; did you mean fast?"),
        ("counts=1,x", "counts: expected an integer, got 'x'"),
        ("counts=1,-2", "counts: expected a number of at least 0, got '-2'"),
        ("out=", "out: expected a value, got nothing"),
        ("--kind", "expected key=value, got '--kind'; did you mean kind?; see --help"),
    ],
)
def test_settings_that_do_not_fit(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings.read([word], Options, description="")
    assert str(refused.value) == message


def test_floors_are_of_any_model() -> None:
    """The built-in one before its warm-up, or another as it is."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert compose("floors").model.steps == 0
        assert compose("floors", ["model=hf", "model.path=DIR"]).model.path == "DIR"

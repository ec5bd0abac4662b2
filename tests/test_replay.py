"""`replay=RUN_DIR` starts the same run again."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from evotext.cli.replay import quoted_path
from tests.command_line_app import CONFIGURATION, App


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path)


@pytest.mark.parametrize("name", ["a b", "it's", "${seed}", "\\${x}", "a,b=c", "[1", "é\\"])
def test_a_folder_of_any_name_can_be_given_back(name: str) -> None:
    override = OverridesParser.create().parse_override(f"resume={quoted_path(Path(name))}")
    assert OmegaConf.create({"resume": override.value()}).resume == name


def test_replay(app: App) -> None:
    app("algorithm.sigma=0.5", "seed=4", "+algorithm.part={}")
    again = app(f"replay={app.runs[0]}")
    assert (again.status, again.err) == (0, "")
    changed = app("algorithm.population=4", f"replay={app.runs[0]}")
    assert changed.err == f"note: not the same as {app.runs[0]}: algorithm.population=4 (was 8)\n"
    first, second, third = (config for config, *_ in app.seen)
    assert first == second
    assert (third.algorithm.population, third.algorithm.sigma, third.seed) == (4, 0.5, 4)
    assert len(app.runs) == 3


def test_replay_finds_the_users_own_folder_again(app: App) -> None:
    app.write("algorithm/mine.yaml", CONFIGURATION["algorithm/small.yaml"].replace("8", "16"), root="mine")
    app(f"--config-dir={app.folder / 'mine'}", "algorithm=mine")
    assert app(f"replay={app.runs[0]}").err == ""
    assert app.seen[1][0].algorithm.population == 16


def test_replay_says_that_a_file_has_changed(app: App) -> None:
    app()
    app.write("algorithm/small.yaml", CONFIGURATION["algorithm/small.yaml"].replace("0.1", "0.2", 1))
    assert "algorithm.sigma=0.2 (was 0.1)" in app(f"replay={app.runs[0]}").err


def test_replay_needs_one_whole_run(app: App) -> None:
    app()
    run = app.runs[0]
    assert app(f"replay={run}", "-m", "seed=1,2").status == 2
    (run / ".hydra" / "overrides.yaml").write_text("[a")
    outcome = app(f"replay={run}")
    assert outcome.status == 2
    assert "got a damaged" in outcome.err

"""The standard functions, and that the strategies go down on one."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.scripts_in_process import SCRIPTS, status_of


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import standard_functions

    return standard_functions


def test_each_function_is_least_where_it_says(script) -> None:
    """Each function is 0 at its optimum and greater around it."""
    for name, least in (("sphere", 0.0), ("Rosenbrock", 1.0), ("Rastrigin", 0.0)):
        function, _ = script.FUNCTIONS[name]
        point = torch.full((1, 6), least, dtype=torch.float64)
        around = point + 0.01 * torch.randn(100, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert float(function(point)) == pytest.approx(0.0, abs=1e-12)
        assert float(function(around).min()) > 0


def test_every_strategy_and_cma_go_down_on_the_sphere(script) -> None:
    """The value falls from 12 to less than a twentieth of that in 2,000 evaluations; the same seed gives the same value."""
    settings = {"shape": [4, 3], "evaluations": 2000, "population": 20, "sigma": 0.1, "end": 0.01}
    config = OmegaConf.create(settings)
    for name, strategy in script.STRATEGIES.items():
        values = [script.strategy_run(strategy, script.sphere, 1.0, 0, 0.03, config) for _ in range(2)]
        assert values[0] == values[1] < 0.6, name
    assert script.cma_run(script.sphere, 1.0, 0, config) < 0.6


def test_it_writes_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["evaluations=100", "population=10", "seeds=[0]", "tuning_seeds=[1]", "learning_rates=[0.01]"]
    assert status_of("standard_functions", *words, f"out={tmp_path / 'table.md'}", monkeypatch=monkeypatch) == 0
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 7 and lines[-1].startswith("| CMA-ES | ")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("evaluations=abc", "evaluations"),
        ("population=7", "population"),
        ("sigma=-1", "sigma"),
        ("shape=[3]", "shape"),
        ("seeds=[1000]", "tuning_seeds"),
    ],
)
def test_a_mistake_is_one_line(
    word: str, message: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert status_of("standard_functions", word, monkeypatch=monkeypatch) == 2
    errors = capfd.readouterr().err
    assert errors.startswith(f"error: {message}") and errors.count("\n") == 1

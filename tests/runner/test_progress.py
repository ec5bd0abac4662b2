"""A run as a person sees it on a terminal."""

import builtins
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from evotext.runner.evaluation import Evaluation
from evotext.runner.progress import RunProgress
from evotext.types import Cost


@pytest.mark.parametrize(("share", "faults"), [(0.0, ""), (0.3, "faults 30%"), (0.0004, "faults 1%")])
@pytest.mark.parametrize("columns", [80, 140])
def test_title_share_and_figures_are_seen_whole(
    columns: int, share: float, faults: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": str(columns), "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    measured = Evaluation(episodes=4, mean_return=0.25, success=0.25, mean_tokens=4.0, cost=Cost(episodes=4))
    with RunProgress("eggroll on conciseness, seed 0", instances="held-out") as progress:
        progress.evaluation(0.0, measured, Cost(), fault_share=share)
        progress.generation(0.5, 0.25, Cost(generated_tokens=123_400, rollout_seconds=100.0), fault_share=share)
    seen = capfd.readouterr().err
    assert "eggroll on conciseness, seed 0" in seen
    assert faults in seen and ("faults" in seen) == bool(faults)
    assert " 50%" in seen and "1,234 tok/s  1:40 left" in seen


def test_what_an_environment_said_is_shown_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    """Names are shown as they are: not as markup, in which a closing tag alone would be an error, nor as emoji."""
    with RunProgress("x", instances="held-out") as progress:
        progress.say("lost [/bold] the [red]database :smile:")
    assert capfd.readouterr().err == "lost [/bold] the [red]database :smile:\n"


def test_a_task_without_success_is_followed_by_its_return(capfd: pytest.CaptureFixture[str]) -> None:
    measured = Evaluation(episodes=4, mean_return=-13.5, success=None, mean_tokens=4.0, cost=Cost(episodes=4))
    with RunProgress("x", instances="held-out") as progress:
        progress.evaluation(0.5, measured, Cost(), fault_share=0.0)
        progress.evaluation(0.25, measured, Cost(rollout_seconds=100.0), fault_share=0.0)
        progress.evaluation(1.0, measured, Cost(rollout_seconds=100.0), fault_share=0.0)
    begin, way, end = capfd.readouterr().err.splitlines()
    assert "held-out return -13.500" in begin and way.endswith("seconds 100.0  5:00 left") and "left" not in end


class ZMQInteractiveShell:
    """The name by which rich recognises a notebook."""


class Output:
    """A stand-in for a widget, whose content is replaced again and again."""

    def __enter__(self) -> None:
        """Send the block's output to the widget."""

    def __exit__(self, *_: object) -> None:
        """Stop."""

    def clear_output(self, wait: bool) -> None:
        """Make room for the next state of the bar."""


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return the list of everything that a notebook displays, in order."""
    displayed: list[object] = []
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    fakes = {"IPython": ModuleType("IPython"), "IPython.display": ModuleType("display"), "ipywidgets": ModuleType("w")}
    fakes["IPython.display"].display = displayed.append  # type: ignore[attr-defined]
    fakes["ipywidgets"].Output = Output  # type: ignore[attr-defined]
    fakes["ipywidgets"].__spec__ = ModuleSpec("ipywidgets", None)
    for name, module in fakes.items():
        monkeypatch.setitem(sys.modules, name, module)
    return displayed


def test_a_notebook_gets_the_bar(notebook: list[object]) -> None:
    with RunProgress("grpo on sort", instances="held-out") as progress:
        progress.generation(0.5, 0.25, Cost(generated_tokens=123_400, rollout_seconds=100.0), fault_share=0.0)
    assert any(isinstance(item, Output) for item in notebook)
    assert any(" 50%" in str(vars(item).get("text", "")) for item in notebook)


def test_the_bar_ends_with_the_last_measurement(notebook: list[object]) -> None:
    measured = Evaluation(episodes=4, mean_return=0.25, success=0.75, mean_tokens=4.0, cost=Cost(episodes=4))
    with RunProgress("grpo on sort", instances="held-out") as progress:
        progress.generation(1.0, 0.25, Cost(), fault_share=0.0)
        progress.evaluation(1.0, measured, Cost(), fault_share=0.0)
    shown = [str(text) for item in notebook if (text := vars(item).get("text"))]
    assert "return 0.25  held-out 0.75" in shown[-1], shown


def test_a_notebook_without_widgets_gets_lines(notebook: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setattr("evotext.runner.progress.find_spec", lambda name: None)
    measured = Evaluation(episodes=4, mean_return=0.25, success=0.25, mean_tokens=4.0, cost=Cost(episodes=4))
    with RunProgress("grpo on sort", instances="held-out") as progress:
        progress.evaluation(0.5, measured, Cost(), fault_share=0.0)
    assert any("held-out success 0.250" in str(vars(item).get("text", "")) for item in notebook)


def test_nothing_is_shown_in_a_notebook_that_asks_for_nothing(notebook: list[object]) -> None:
    with RunProgress("grpo on sort", instances="held-out", shown=False) as progress:
        progress.generation(0.5, 0.25, Cost(), fault_share=0.0)
        progress.say("a note")
    assert notebook == []

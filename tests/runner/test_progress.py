"""What a person sees of a run on a terminal."""

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
    """Not as markup, of which a closing tag alone would be an error, nor as emoji."""
    with RunProgress("x", instances="held-out") as progress:
        progress.say("lost [/bold] the [red]database :smile:")
    assert capfd.readouterr().err == "lost [/bold] the [red]database :smile:\n"


def test_a_task_without_success_is_followed_by_its_return(capfd: pytest.CaptureFixture[str]) -> None:
    measured = Evaluation(episodes=4, mean_return=-13.5, success=None, mean_tokens=4.0, cost=Cost(episodes=4))
    with RunProgress("x", instances="held-out") as progress:
        progress.evaluation(0.5, measured, Cost(), fault_share=0.0)
    assert "held-out return -13.500" in capfd.readouterr().err

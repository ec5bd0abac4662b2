"""What a person sees of a run on a terminal."""

import pytest

from evotext.runner.progress import RunProgress
from evotext.types import Cost


@pytest.mark.parametrize("columns", [80, 140])
def test_title_share_and_figures_are_seen_whole(
    columns: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": str(columns), "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    with RunProgress("eggroll on conciseness, seed 0", instances="held-out") as progress:
        progress.generation(0.5, 0.25, Cost(generated_tokens=123_400, rollout_seconds=100.0))
    seen = capfd.readouterr().err
    assert "eggroll on conciseness, seed 0" in seen
    assert " 50%" in seen and "1,234 tok/s  1:40 left" in seen

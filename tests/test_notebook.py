"""docs/notebook.ipynb runs from top to bottom in a kernel, and shows what it showed when it was committed."""

import re
from pathlib import Path

import pytest

pytest.importorskip("ipykernel")
pytest.importorskip("ipywidgets")
nbformat = pytest.importorskip("nbformat")
import run_notebook  # noqa: E402

SMALL = {
    '"tiny"': '{"name": "tiny", "steps": 0, "hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 2}',
    '{"unit": "flops", "limit": 6e11}': '{"unit": "episodes", "limit": 64}',
    '{"points": 8, "samples": 0}': '{"points": 2, "samples": 0, "episodes": 8}',
    '"grpo"': '{"name": "grpo", "prompts": 4, "group_size": 4}',
    '"population": 64': '"population": 4, "prompts": 2',
}


def shown(cells: list) -> list[list[str]]:
    """The kinds of what each cell shows, with the words of what it prints."""
    found = []
    for cell in cells:
        kinds = []
        for output in cell.get("outputs", ()):
            text = output.get("text") or output["data"]["text/plain"]
            kinds += [*sorted(output.get("data", ())), *re.findall(r"[a-zA-Z]{4,}", text)]
        found.append(kinds)
    return found


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_it_did(tmp_path: Path) -> None:
    committed = nbformat.read(run_notebook.NOTEBOOK, as_version=4)
    small = nbformat.read(run_notebook.NOTEBOOK, as_version=4)
    text = "\n".join(cell.source for cell in small.cells)
    assert all(words in text for words in SMALL)
    for cell in small.cells:
        for words, smaller in SMALL.items():
            cell.source = cell.source.replace(words, smaller)
    run_notebook.executed(small, tmp_path)
    bars = [output for cell in small.cells for output in cell.get("outputs", ()) if "100%" in str(output)]
    assert len(bars) == 2 and "widgets" not in small.metadata
    unlike = [
        (cell.source, new, old)
        for cell, new, old in zip(small.cells, shown(small.cells), shown(committed.cells), strict=True)
        if new != old and "decode(" not in cell.source and "tune(" not in cell.source
    ]
    assert unlike == []

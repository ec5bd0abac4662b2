"""Run docs/notebook.ipynb from top to bottom and keep what it shows: `python scripts/run_notebook.py`."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebook.ipynb"
WIDGETS, STATE = "application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"
SECONDS = 600  # a cell


def executed(notebook: Any, folder: Path) -> Any:
    """Run the cells in a kernel of their own, whose runs go to the folder. Raise CellExecutionError for one that fails.

    A widget is shown as it looked last, since no page but Jupyter's shows widgets.
    """
    NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    state = notebook.metadata.pop("widgets", {}).get(STATE, {}).get("state", {})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        shown = []
        for output in cell.get("outputs", ()):
            widget = output.get("data", {}).get(WIDGETS)
            inner = state[widget["model_id"]]["state"]["outputs"] if widget else [output]
            shown += [
                o for o in map(nbformat.from_dict, inner) if o.output_type == "stream" or o.data["text/plain"].strip()
            ]
        if "outputs" in cell:
            cell.outputs = shown
    return notebook


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        nbformat.write(executed(nbformat.read(NOTEBOOK, as_version=4), Path(folder)), NOTEBOOK)

"""How a run ended, by its own summary."""

from pathlib import Path

from evotext.run_folder.reader import read_summary


def is_completed(folder: Path, limit: float) -> bool:
    """Return whether the folder's run has come to the end of a budget of this limit."""
    summary = read_summary(folder, [])
    return summary is not None and summary.status == "completed" and (summary.budget.spent or 0.0) >= limit


def ended_well(folder: Path) -> bool:
    """Return whether the run did what it was to do: it was completed, or a pruner ended it."""
    summary = read_summary(folder, [])
    return summary is not None and summary.status in ("completed", "pruned")

"""The end of a run, by its own records."""

import math
from pathlib import Path

from evotext.run_folder.reader import read_summary
from evotext.run_folder.record import RunRecord

# Statuses of a run that did what it was to do: it was completed, or a pruner ended it.
ENDED_WELL = ("completed", "pruned")


def is_completed(folder: Path, limit: float) -> bool:
    """Return whether the folder's run has come to its end: that of a budget of this limit, or an earlier one for a reason."""
    summary = read_summary(folder, [])
    if summary is None or summary.status != "completed":
        return False
    return bool(summary.reason) or (summary.budget.spent or 0.0) >= limit


def ended_well(folder: Path) -> bool:
    """Return whether the run of a folder did what it was to do."""
    summary = read_summary(folder, [])
    return summary is not None and summary.status in ENDED_WELL


def final_score(run: RunRecord) -> float | None:
    """Return what a run is chosen by: success where its budget ended, as reports show it; None if it was not measured.

    The return stands in where the task knows no success.
    """
    found = (run.after.get("success", math.nan), run.after.get("return", math.nan))
    return next((score for score in found if math.isfinite(score)), None)

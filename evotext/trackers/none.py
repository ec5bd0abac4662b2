"""`tracker=none`: nothing besides `metrics.jsonl`."""

from pathlib import Path

from evotext.protocols import Tracker


class NoTracker(Tracker):
    """Nothing besides `metrics.jsonl`."""

    def __init__(self, folder: Path) -> None:
        """Take the run's folder as every tracker does."""

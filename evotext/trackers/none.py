"""`tracker=none`: nothing besides `metrics.jsonl`."""

from collections.abc import Mapping, Sequence
from pathlib import Path


class NoTracker:
    """Nothing besides `metrics.jsonl`."""

    def __init__(self, folder: Path) -> None:
        """Take the run's folder as every tracker does."""

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """Do nothing."""

    def log_transcripts(self, generation: int, texts: Sequence[str]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

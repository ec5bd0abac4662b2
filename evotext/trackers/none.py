"""`tracker=none`: nothing besides `metrics.jsonl`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from evotext.run_folder.schema import TrainingEpisode


class NoTracker:
    """Nothing besides `metrics.jsonl`."""

    def __init__(self, folder: Path) -> None:
        """Take the run's folder as every tracker does."""

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """Do nothing."""

    def log_transcripts(self, generation: int, texts: Sequence[str]) -> None:
        """Do nothing."""

    def log_training_episodes(self, episodes: Sequence[TrainingEpisode]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

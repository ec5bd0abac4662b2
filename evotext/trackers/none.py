"""`tracker=none`: nothing besides `metrics.jsonl`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from evotext.run_folder.schema import TrainingEpisode


class NoTracker:
    """Nothing besides `metrics.jsonl`."""

    def __init__(self, folder: Path) -> None:
        """Takes the run's folder as every tracker does."""

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """Nothing."""

    def log_transcripts(self, generation: int, texts: Sequence[str]) -> None:
        """Nothing."""

    def log_training_episodes(self, episodes: Sequence[TrainingEpisode]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

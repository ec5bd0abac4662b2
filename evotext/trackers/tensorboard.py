"""`tracker=tensorboard`: a run's metrics and sample episodes as TensorBoard events."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from evotext.run_folder import names
from evotext.run_folder.configuration import hyperparameters
from evotext.run_folder.ending import ended_well
from evotext.run_folder.schema import TrainingEpisode
from evotext.trackers.names import shared_names


class TensorBoard:
    """`tensorboard/`: every metric over generations, and a few episodes as text.

    The run's hyperparameters go there too, so that the HParams page shows the runs of a sweep side by side with the last
    value of every metric. Each run logs only its own values; TensorBoard finds the alternatives in all runs.

    A run that was taken up again begins with a later generation than 0: TensorBoard is told to forget what an earlier
    process wrote from that generation on.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: SummaryWriter | None = None

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """Add one point to each metric, at the record's generation."""
        generation = int(record["generation"])
        for name, value in shared_names(record).items():
            if not name.startswith("spent/"):
                self._writer(generation).add_scalar(name, value, generation)

    def log_transcripts(self, generation: int, texts: Sequence[str]) -> None:
        """Add the episodes as text."""
        for i, text in enumerate(texts):
            self._writer(generation).add_text(f"episodes/{i}", _verbatim(text), generation)

    def log_training_episodes(self, episodes: Sequence[TrainingEpisode]) -> None:
        """Add the episodes as text, with their returns and credit."""
        for i, episode in enumerate(episodes):
            generation = episode.generation or 0
            self._writer(generation).add_text(f"train/episodes/{i}", _verbatim(episode.text), generation)

    def close(self) -> None:
        """Write out what is pending, and that the run was completed if it was."""
        if self._opened is None:
            return
        if ended_well(self._folder):
            _, _, end = hparams({}, {})
            self._write(end)
        self._opened.close()

    def _writer(self, generation: int) -> SummaryWriter:
        if self._opened is None:
            place = self._folder / names.TENSORBOARD
            self._opened = SummaryWriter(str(place), flush_secs=10, purge_step=generation)
            _, start, _ = hparams(hyperparameters(self._folder), {})
            self._write(start)
        return self._opened

    def _write(self, summary: Any) -> None:
        assert self._opened is not None
        self._opened._get_file_writer().add_summary(summary)  # the writer's own add_hparams makes a run of it


def _verbatim(text: str) -> str:
    """Return Markdown that shows the text verbatim."""
    return "\n".join(f"    {line}" for line in text.splitlines())

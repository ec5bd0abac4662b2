"""Functions of a caller's that watch a run and may end it."""

from collections.abc import Callable, Mapping, Sequence

from evotext.run_folder.schema import TrainingEpisode

Callback = Callable[[Mapping[str, float | int | str]], object]
"""Gets each line of `metrics.jsonl`, after a generation and after a measurement; a true return ends the run."""


class Callbacks:
    """A tracker that hands what is logged to these functions. An error in one of them is the run's."""

    def __init__(self, functions: Sequence[Callback] = ()) -> None:
        self._functions = functions
        self.called_off = False
        """Whether one of them has asked the run to end."""

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """Call every function."""
        for function in self._functions:
            self.called_off |= bool(function(record))

    def log_transcripts(self, generation: int, texts: Sequence[str]) -> None:
        """Do nothing."""

    def log_training_episodes(self, episodes: Sequence[TrainingEpisode]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

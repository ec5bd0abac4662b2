"""Functions of the caller's that watch a run and may end it."""

from collections.abc import Callable, Mapping, Sequence

from evotext.protocols import Tracker

Callback = Callable[[Mapping[str, float | int | str]], object]
"""Gets each line of `metrics.jsonl`, after a generation and after a measurement; a true return value ends the run."""


class Callbacks(Tracker):
    """A tracker that hands what is logged to these functions. An error in one of them is the run's."""

    def __init__(self, functions: Sequence[Callback] = ()) -> None:
        self._functions = functions
        self.called_off = False
        """Whether one of them has asked the run to end."""

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """Call every function."""
        for function in self._functions:
            self.called_off |= bool(function(record))

"""Early stopping: ending a run whose own measurements no longer improve. Runs that fall behind others are the pruner's."""

from collections.abc import Sequence
from typing import Protocol

from evotext.validation import NonNegativeFloat, PositiveInt, checked_record


class Stopper(Protocol):
    """Decides after each measurement whether a run goes on, by nothing but the run's scores, so that a resumed run agrees."""

    @property
    def chooses(self) -> bool:
        """Whether it ever ends a run: its measurements are then a choice, and not for reports."""

    def enough(self, scores: Sequence[float]) -> str:
        """Return why the run should end; empty if it should go on. scores: of all measurements, that before training first."""


class NoStopper:
    """Every run goes to its end."""

    chooses = False

    def enough(self, scores: Sequence[float]) -> str:
        """Return an empty text."""
        return ""


@checked_record
class Patience:
    """Ends a run when `measurements` in a row were not better than the best before them by more than `gain`."""

    measurements: PositiveInt
    gain: NonNegativeFloat

    chooses = True

    def enough(self, scores: Sequence[float]) -> str:
        """Return the reason, as `Stopper` says."""
        best, since = scores[0], 0
        for score in scores[1:]:
            if score > best + self.gain:
                best, since = score, 0
            else:
                since += 1
        if since < self.measurements:
            return ""
        more = f" by more than {self.gain:g}" if self.gain else ""
        return f"stopped early: the last {since} measurements were not better than {best:.3f}{more}"

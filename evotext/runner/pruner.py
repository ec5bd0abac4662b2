"""Ends the runs of a sweep that fall behind, by Optuna's median rule, with any launcher and sweeper.

Runs of a sweep are neighbours on disk, and each logs its measurements there: no database and no messages are needed.
"""

import statistics
from pathlib import Path
from typing import NamedTuple, Protocol

from evotext.run_folder.configuration import read_config
from evotext.run_folder.reader import read_evaluations
from evotext.run_folder.record import Metric
from evotext.validation import Fraction, PositiveInt, checked_record

# Shares of a budget that differ by less are the same.
_ALIKE = 1e-9
# Sections that have to be equal for measurements to be comparable.
SECTIONS = ("env", "model", "adapter", "budget", "evaluation")


class Pruner(Protocol):
    """Decides after each measurement whether a run goes on."""

    @property
    def chooses(self) -> bool:
        """Whether it ever ends a run: its measurements are then a choice, and not for reports."""

    def behind(self, folder: Path) -> str:
        """Say why the run of this folder should end; empty if it should go on."""


class NoPruner:
    """Every run goes to its end."""

    chooses = False

    def behind(self, folder: Path) -> str:
        """Return nothing."""
        return ""


@checked_record
class MedianPruner:
    """Ends a run whose last score is below the median of its neighbours' scores at the same spending.

    The score is success, or the return of a task that knows no success. Neighbours are the folders beside the run's whose task,
    model, budget and evaluation are the same. warm_up: share of the budget before which no run ends. fewest: neighbours that
    must have got as far. Spending is compared, not the number of measurements, since a run of large generations skips some.
    """

    warm_up: Fraction
    fewest: PositiveInt

    chooses = True

    def behind(self, folder: Path) -> str:
        """Say why the run of this folder should end; empty if it should go on."""
        own, setting = _measured(folder), _setting(folder)
        if setting is None or not own or own[-1].spent < self.warm_up:
            return ""
        now = own[-1]
        others = [
            [then.score for then in reached if then.spent <= now.spent + _ALIKE][-1]
            for neighbour in sorted(folder.resolve().parent.iterdir())
            if neighbour.resolve() != folder.resolve()
            and (reached := _measured(neighbour))
            and reached[-1].spent >= now.spent - _ALIKE
            and _setting(neighbour) == setting
        ]
        if len(others) < self.fewest or now.score >= statistics.median(others):
            return ""
        return f"{now.name} {now.score:.3f} is below {statistics.median(others):.3f}, the median of {len(others)} runs so far"


class _Measured(NamedTuple):
    """One measurement of a run."""

    spent: float
    """Share of the budget, 0 before training."""
    name: Metric
    """The score's name."""
    score: float


def _measured(folder: Path) -> list[_Measured]:
    """Return a run's measurements in order, beginning with the one before training.

    It is empty for a folder without a run, and for a run of an older version, which does not say what it had spent.
    """
    found = []
    for line in read_evaluations(folder, []):
        if line.spent is not None and line.success is not None:
            found.append(_Measured(line.spent, "success", line.success))
        elif line.spent is not None and line.mean_return is not None:
            found.append(_Measured(line.spent, "return", line.mean_return))
    return found


def _setting(folder: Path) -> dict[str, object] | None:
    config = read_config(folder)
    return {key: config.get(key) for key in SECTIONS} if config else None

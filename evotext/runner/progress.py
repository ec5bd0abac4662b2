"""Progress of a run on the screen: a bar on a terminal or in a notebook, a line for each evaluation elsewhere."""

import math
from importlib.util import find_spec
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from evotext.runner.evaluation import Evaluation
from evotext.types import Cost

# Columns of a terminal that hold a title of usual length, the bar and the figures in one line.
WIDE = 115


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on: that nobody reads our lines any more is no reason to end a run."""
        self.quiet = True


class RunProgress:
    """Progress over the budget, with the current return, success, speed and time left.

    instances: the kind of instances that are measured. shown: False prints nothing, as in all processes of a run but one.
    """

    def __init__(self, title: str, *, instances: str, shown: bool = True) -> None:
        self._instances, self._title = instances, title
        self._console = _Console(stderr=True, highlight=False, markup=False, emoji=False, quiet=not shown)
        # rich draws in a notebook by this package.
        self._live = self._console.is_terminal or (self._console.is_jupyter and find_spec("ipywidgets") is not None)
        self._wide = self._console.width >= WIDE
        heading = [TextColumn("[bold]{task.description}")] if self._wide else []
        bar = BarColumn(bar_width=20 if self._wide else 10)
        figures = TextColumn("{task.fields[mean_return]}{task.fields[score]}{task.fields[speed]}")
        columns = (*heading, bar, TaskProgressColumn(), figures)
        self._bar = Progress(*columns, console=self._console, disable=not (self._live and shown))
        self._task = self._bar.add_task(title, total=1.0, mean_return="", score="", speed="starting")

    def __enter__(self) -> "RunProgress":
        if self._live and not self._wide:
            self._console.print(self._title, style="bold", soft_wrap=True)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.refresh()  # in a notebook, stopping leaves the bar as it was drawn last
        self._bar.stop()

    def generation(self, fraction: float, mean_return: float, cost: Cost, fault_share: float) -> None:
        """Show a generation: share of the budget spent, mean return of its episodes (NaN: it had none), cost so far.

        fault_share: of all episodes so far, measured ones included; shown if there are any.
        """
        shown = "" if math.isnan(mean_return) else f"return {mean_return:.2f}  "
        speed = f"{cost.generated_tokens / max(cost.seconds, 1e-9):,.0f} tok/s  {_left(fraction, cost)} left"
        shown = f"{_faults(fault_share)}{shown}"
        self._bar.update(self._task, completed=min(fraction, 1.0), mean_return=shown, speed=speed)

    def evaluation(self, fraction: float, evaluation: Evaluation, cost: Cost, fault_share: float) -> None:
        """Show a measurement."""
        name, value = evaluation.score
        self._bar.update(self._task, score=f"{self._instances} {value:.2f}  ")
        if not self._live:
            self._console.print(
                f"{self._title}  {min(fraction, 1):4.0%}  {self._instances} {name} {value:.3f}  "
                f"episodes {cost.episodes:,}  seconds {cost.seconds:.1f}  {_faults(fault_share)}"
                f"{f'{_left(fraction, cost)} left' if 0 < fraction < 1 else ''}".rstrip(),
                soft_wrap=True,  # a log's lines are not cut to a terminal's width
            )

    def say(self, text: str) -> None:
        """Print one line, above the bar."""
        self._console.print(text, soft_wrap=True)


def _faults(share: float) -> str:
    """Return the share in words; more than none never reads as none."""
    return f"faults {max(share, 0.01):.0%}  " if share else ""


def _left(fraction: float, cost: Cost) -> str:
    """Return how long the rest of the budget takes at the speed so far. fraction: the share that is spent."""
    return _clock(max(cost.seconds * (1 - fraction) / fraction, 0.0) if fraction > 0 else float("inf"))


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

"""The live page of runs that go on: how far each is, the curves so far, and the newest episodes.

It holds no script, loads nothing, and reads itself again every few seconds. All text in it comes from run folders and so
from models: jinja2 escapes it.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from importlib import resources

import jinja2

from evotext.run_folder.reader import LONGEST_EPISODE, read_training_episodes
from evotext.run_folder.record import Metric, RunRecord
from evotext.run_folder.text import clean_lines

from . import formats
from .figures import PALETTES

WIDTH, HEIGHT, MARGIN = 640, 240, 36
"""The picture's size, in its own units."""
MOST_RUNS = 60
"""Curves in the picture: the newest runs."""
SHOWN_RUNS, SHOWN_EPISODES = 3, 2
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_TEMPLATES = resources.files(__package__) / "templates"


def live_page(runs: Sequence[RunRecord], *, now: datetime, refresh: int) -> str:
    """Return the page. refresh: seconds until it reads itself again."""
    newest = sorted(runs, key=_age)
    metric: Metric = (
        "success" if any(math.isfinite(p.score["success"]) for run in runs for p in run.points) else "return"
    )
    names = list(dict.fromkeys(run.algorithm for run in runs))
    colours = {name: i % len(PALETTES["light"]) for i, name in enumerate(names)}
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((_TEMPLATES / "live.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        now=now.strftime("%H:%M:%S"),
        refresh=refresh,
        metric=metric,
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        palettes=PALETTES,
        width=WIDTH,
        height=HEIGHT,
        margin=MARGIN,
        names=colours,
        curves=_curves(newest[:MOST_RUNS], metric, colours),
        rows=[_row(run, metric, colours) for run in newest],
        episodes=[_episodes(run) for run in newest if run.samples][:SHOWN_RUNS],
    )


def seconds_left(run: RunRecord) -> float:
    """Return how long training takes until the budget is spent, at its speed so far; NaN where that is not known."""
    if run.status != "unfinished" or not run.progress > 0:
        return float("nan")
    return run.seconds * (1 - run.progress) / run.progress


def _age(run: RunRecord) -> float:
    """Return a key by which runs that go on come first, and then those that were written to last."""
    try:
        changed = max((file.stat().st_mtime for file in run.folder.iterdir()), default=0.0)
    except OSError:
        changed = 0.0
    return -changed - (1e12 if run.status == "unfinished" else 0.0)


def _row(run: RunRecord, metric: Metric, colours: dict[str, int]) -> dict[str, object]:
    scores = [p.score[metric] for p in run.points if math.isfinite(p.score[metric])]
    left = seconds_left(run)
    known = math.isfinite(run.progress)
    return {
        "name": f"{run.algorithm or 'unknown'} on {run.env or 'unknown'}",
        "seed": formats.MISSING if run.seed is None else str(run.seed),
        "look": colours[run.algorithm],
        "status": run.status if run.status != "unfinished" else "running",
        "progress": f"{100 * run.progress:.0f}" if known else "0",
        "share": f"{run.progress:.0%}" if known else formats.MISSING,
        "left": formats.seconds(left) if math.isfinite(left) else "",
        "first": formats.score(scores[0]) if scores else formats.MISSING,
        "last": formats.score(scores[-1]) if scores else formats.MISSING,
    }


def _curves(runs: Sequence[RunRecord], metric: Metric, colours: dict[str, int]) -> dict[str, object]:
    """Return each run's measurements over its share of the budget as the points of a line, and the range of the scores."""
    lines = []
    for run in runs:
        points = [(p.spent, p.score[metric]) for p in run.points if math.isfinite(p.score[metric]) and p.spent >= 0]
        if points:
            lines.append((colours[run.algorithm], points))
    scores = [score for _, points in lines for _, score in points]
    low, high = (0.0, 1.0) if metric == "success" else (min(scores, default=0.0), max(scores, default=1.0))
    spread = (high - low) or 1.0

    def place(spent: float, score: float) -> tuple[str, str]:
        x = MARGIN + min(spent, 1.0) * (WIDTH - 2 * MARGIN)
        y = HEIGHT - MARGIN - (score - low) / spread * (HEIGHT - 2 * MARGIN)
        return f"{x:.1f}", f"{y:.1f}"

    placed = [(look, [place(*point) for point in points]) for look, points in lines]
    return {"lines": placed, "low": formats.score(low), "high": formats.score(high)}


def _episodes(run: RunRecord) -> dict[str, object]:
    training = list(read_training_episodes(run.folder, []))[-SHOWN_EPISODES:]
    measured = run.samples[-1]
    return {
        "name": f"{run.algorithm} on {run.env}, seed {run.seed}",
        "generation": measured.generation,
        "measured": measured.texts[:SHOWN_EPISODES],
        "trained": [(one.generation, clean_lines(one.text, LONGEST_EPISODE)) for one in training],
    }

"""Learning curves as plotly figures, and the palette that they and the static picture share.

Figures are plain dictionaries as plotly.js takes them. Each trace's `meta` says what it is, so that the page can paint
it for light or dark: {"role": "mean" | "band" | "run", "style": index into the palette}.
Colours are Okabe and Ito's, told apart by colour-blind eyes; dashes and markers tell the lines apart without colour.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from evotext.run_folder.cost import Axis
from evotext.run_folder.record import Metric

from .across import Overall, Sweep
from .axes import AXES
from .comparison import Comparison, natural
from .curves import Band, curve_of, value_at
from .formats import count, score
from .statistics import Array
from .tasks import Contestant, Task

PALETTES: Mapping[str, Sequence[str]] = {
    "light": ("#0072b2", "#d55e00", "#00835f", "#a8487f", "#a87400", "#4b4b4b"),
    "dark": ("#5ab4f0", "#ff9152", "#3fd0a4", "#ea9cc9", "#f0c244", "#c8c8c8"),
}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross")
LOGARITHMIC = 8
"""Values of a swept option that differ by this factor are drawn on a logarithmic axis."""
# Points of a curve in words: shares of the longest curve.
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)

Figure = dict[str, object]


def metric_title(metric: Metric, tasks: Sequence[Task]) -> str:
    """Return the title of the y axis: held-out instances, unless runs were measured on others."""
    kinds = {task.instances for task in tasks} or {"held-out"}
    return f"Held-out {metric}" if kinds == {"held-out"} else f"{metric.capitalize()} ({' and '.join(sorted(kinds))})"


class Look(NamedTuple):
    """The look of a contestant; no two of 36 are the same."""

    colour: int
    """Index into a palette."""
    pattern: int
    """Index into dashes and markers."""


def styles(comparison: Comparison) -> dict[str, Look]:
    """Return the look of each contestant, the same in all tasks. From the seventh on colours repeat, with other patterns."""
    names = sorted({contestant.name for task in comparison.tasks for contestant in task.contestants}, key=natural)
    many = len(DASHES)
    return {name: Look(i % many, (i + i // many) % many) for i, name in enumerate(names)}


def axes_of(task: Task, metric: Metric) -> list[Axis]:
    """Return the axes along which at least one run has a curve."""
    return [
        axis
        for axis in AXES
        if any(curve_of(run, axis, metric) for c in task.contestants for run in (*c.counted, *c.others))
    ]


def first_axis(comparison: Comparison) -> Axis:
    """Return the unit of the budget, along which the contestants are meant to be equal; else episodes."""
    units = {run.budget_unit for run in comparison.runs if run.budget_unit}
    return next((axis for axis in AXES if units == {axis}), "episodes")


def learning_curves(task: Task, axis: Axis, metric: Metric, style: Mapping[str, Look]) -> Figure:
    """Draw one line a contestant with its interval as a band, and its runs as faint lines."""
    faint: list[Figure] = []
    bands: list[Figure] = []
    means: list[Figure] = []
    for contestant in task.contestants:
        look = style[contestant.name]
        faint += _runs(contestant, axis, metric, look)
        band = contestant.bands.get(axis)
        if band:
            bands += _band(band, contestant.name, look)
            means.append(_mean(band, contestant.name, look, f"after {{}} {AXES[axis].lower()}"))
    return {
        "data": [*bands, *faint, *means],
        "layout": _layout(AXES[axis], metric_title(metric, [task]), metric == "success"),
    }


def sweep_curves(sweep: Sweep, metric: Metric, style: Mapping[str, Look]) -> Figure:
    """Draw the final score over the option's values."""
    figure = _lines(sweep.lines, style, sweep.option, metric_title(metric, sweep.tasks), metric == "success", "at {}")
    if spread(sweep.values):
        axis: Figure = {"type": "log", "tickvals": list(sweep.values), "ticktext": [f"{v:g}" for v in sweep.values]}
        figure["layout"] |= {"xaxis": figure["layout"]["xaxis"] | axis}  # type: ignore[index, operator]
    return figure


def spread(values: Sequence[float]) -> bool:
    """Return whether values need a logarithmic axis: 1, 2, 4, 8, ... rather than 1, 2, 3, 4."""
    return values[0] > 0 and values[-1] / values[0] >= LOGARITHMIC


def profile_curves(overall: Overall, title: str, style: Mapping[str, Look]) -> Figure:
    """Draw performance profiles: the share of runs that reach more than a score. title: the score's name."""
    lines = {profile.name: profile.above for profile in overall.profiles}
    return _lines(lines, style, title, "Share of runs above it", True, "of runs above {}", marked=False)


def _lines(
    lines: Mapping[str, Band],
    style: Mapping[str, Look],
    x_title: str,
    y_title: str,
    share: bool,
    place: str,
    *,
    marked: bool = True,
) -> Figure:
    bands = [trace for name, band in lines.items() for trace in _band(band, name, style[name])]
    means = [_mean(band, name, style[name], place, marked=marked) for name, band in lines.items()]
    return {"data": [*bands, *means], "layout": _layout(x_title, y_title, share)}


def points_in_words(task: Task, axis: Axis) -> tuple[list[str], list[tuple[str, list[tuple[str, str]]]]]:
    """Return the curves as a table: costs along the top, and each contestant's scores and intervals there."""
    drawn = [(c.name, c.bands[axis]) for c in task.contestants if axis in c.bands]
    longest = max((band.cost[-1] for _, band in drawn), default=0.0)
    costs = [share * longest for share in SHARES]
    rows = []
    for name, band in drawn:
        cells = []
        for cost in costs:
            value, low, high = value_at(band, cost)
            cells.append((score(value), "" if math.isnan(low) else f"[{low:.2f}, {high:.2f}]"))
        rows.append((name, cells))
    return [count(cost) for cost in costs], rows


def described(task: Task, axis: Axis, metric: Metric) -> str:
    """Return the figure in words for those who do not see it."""
    ends = [
        f"{c.name} goes from {score(c.bands[axis].score[0])} to {score(c.bands[axis].score[-1])}"
        for c in task.contestants
        if axis in c.bands
    ]
    return f"{metric_title(metric, [task])} on {task.name} against {AXES[axis].lower()}: " + (
        "; ".join(ends) or "no curves yet"
    )


def _mean(band: Band, name: str, look: Look, place: str, *, marked: bool = True) -> Figure:
    """Return the mean in words. place: the words after a value, with {} for its place."""
    texts = []
    for i, value in enumerate(band.score):
        between = f" [{band.low[i]:.2f}, {band.high[i]:.2f}]" if band.low is not None and band.high is not None else ""
        texts.append(f"{score(value)}{between} {html.escape(place.format(count(band.cost[i])))}")
    return {
        "type": "scatter",
        "mode": "lines+markers" if marked else "lines",
        "name": _text(name),
        "legendgroup": name,
        "x": _numbers(band.cost),
        "y": _numbers(band.score),
        "text": texts,
        "hovertemplate": "%{text}<extra>%{fullData.name}</extra>",
        "line": {"width": 2.5, "dash": DASHES[look.pattern]},
        "marker": {"size": 6, "symbol": MARKERS[look.pattern]},
        "meta": {"role": "mean", "style": look.colour},
    }


def _band(band: Band, name: str, look: Look) -> list[Figure]:
    if band.low is None or band.high is None:
        return []
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": _text(name),
            "legendgroup": name,
            "showlegend": False,
            "hoverinfo": "skip",
            "x": _numbers(band.cost) + _numbers(band.cost)[::-1],
            "y": _numbers(band.high) + _numbers(band.low)[::-1],
            "fill": "toself",
            "line": {"width": 0},
            "meta": {"role": "band", "style": look.colour},
        }
    ]


def _runs(contestant: Contestant, axis: Axis, metric: Metric, look: Look) -> list[Figure]:
    traces: list[Figure] = []
    for run in (*contestant.counted, *contestant.others):
        curve = curve_of(run, axis, metric)
        if curve is None or (len(contestant.counted) == 1 and run in contestant.counted):
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": _text(contestant.name),
                "legendgroup": contestant.name,
                "showlegend": False,
                "hoverinfo": "skip",
                "x": _numbers(curve.cost),
                "y": _numbers(curve.score),
                "line": {"width": 1, "dash": "solid" if run in contestant.counted else "dot"},
                "meta": {"role": "run", "style": look.colour},
            }
        )
    return traces


def _layout(x_title: str, y_title: str, share: bool) -> Figure:
    """Return the layout. share: whether the y axis is from 0 to 1."""
    y: Figure = {"title": {"text": y_title, "standoff": 8}, "zeroline": False, "automargin": True}
    if share:
        y |= {"range": [-0.02, 1.04], "tickvals": [0, 0.2, 0.4, 0.6, 0.8, 1], "tickformat": ".1f"}
    return {
        "height": 360,
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "dragmode": False,
        "hovermode": "closest",
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"title": {"text": _text(x_title), "standoff": 8}, "rangemode": "tozero", "automargin": True},
        "yaxis": y,
        "font": {"family": "system-ui, sans-serif", "size": 13},
    }


def _numbers(values: Array) -> list[float]:
    return [round(float(value), 6) for value in values]


def _text(name: str) -> str:
    """Escape a label, which Plotly reads as a little HTML."""
    return html.escape(name, quote=False)

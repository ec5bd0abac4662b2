"""Learning curves and sweeps as one static SVG, for a README or for paper."""

import io
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evotext.run_folder.cost import Axis
from evotext.run_folder.record import Metric

from .axes import AXES
from .comparison import Comparison
from .curves import Band
from .figures import PALETTES, Look, metric_title, spread, styles
from .formats import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 0.75
"""A pixel: sizes below are in pixels, as a browser shows them."""
WIDTH, PANEL_HEIGHT, LEGEND_LINE = 860, 270, 24
LONGEST = 40
"""Letters of a name in the legend."""
LETTER = 7.4
"""Width of a letter, on average."""
INK, MUTED, GRID = "#1b1f24", "#59636e", "#e4e7eb"
COLOURS = PALETTES["light"]
# One a pattern, in the order of plotly's dashes and markers. Dashes are in widths of the line.
DASHES = ("-", (0, (3.2, 1.6)), (0, (0.8, 1.6)), (0, (3.2, 1.6, 0.8, 1.6)), (0, (5.6, 1.6)), (0, (5.6, 1.6, 0.8, 1.6)))
MARKS = ("o", "s", "D", "^", "X", "P")
STYLE: dict[Any, Any] = {
    "font.size": 13 * POINTS,
    "axes.titlesize": 13 * POINTS,
    "axes.titleweight": 600,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 13 * POINTS,
    "axes.edgecolor": GRID,
    "axes.axisbelow": True,
    "axes.grid.axis": "y",
    "axes.grid": True,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": GRID,
    "grid.linewidth": POINTS,
    "xtick.labelsize": 12 * POINTS,
    "ytick.labelsize": 12 * POINTS,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 8 * POINTS,
    "ytick.major.pad": 8 * POINTS,
    "figure.constrained_layout.w_pad": 8 * POINTS / 72,
    "figure.constrained_layout.h_pad": 6 * POINTS / 72,
    "figure.constrained_layout.hspace": 0.03,
    "lines.linewidth": 2.5 * POINTS,
    "lines.markersize": 6.5 * POINTS,
    "text.color": INK,
    "text.parse_math": False,  # names come from folders, and a dollar sign is one
    "svg.fonttype": "none",  # text stays text: to be searched, read aloud and shown in the reader's font
    "svg.hashsalt": "evotext",  # the same runs give the same picture
}


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """One plot of the picture."""

    title: str
    x_title: str
    lines: Sequence[tuple[str, Look, Band]]
    """A name, its look and its line."""
    values: Sequence[float] = ()
    """The ticks of the x axis; empty for a range from 0."""


def picture(comparison: Comparison, axis: Axis) -> str:
    """Return an SVG document on a white ground: a panel a task (swept ones left out) and a sweep, side by side."""
    # Here, and not at the top: it takes a second to load. It would tell of its cache of fonts on standard error.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style = styles(comparison)
    panels = _panels(comparison, axis, style)
    columns = next(most for fewest, most in ((1, 1), (4, 2), (math.inf, 3)) if len(panels) <= fewest)
    rows, beside = -(-len(panels) // columns), _names_a_line(style)
    height = rows * PANEL_HEIGHT + -(-len(style) // beside) * LEGEND_LINE + 10
    metric = metric_title(comparison.metric, comparison.tasks)
    out = io.StringIO()
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's font may have it
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH * POINTS / 72, height * POINTS / 72), layout="constrained")
        for i, panel in enumerate(panels):
            axes = figure.add_subplot(rows, columns, i + 1)
            _draw(axes, panel, comparison.metric, number=i, width=WIDTH / columns)
            if i % columns == 0:
                axes.set_ylabel(metric)
        _legend(figure, style, beside)
        figure.savefig(
            out,
            format="svg",
            metadata={"Title": f"{metric} on {', '.join(panel.title for panel in panels)}", "Date": None},
        )
    return out.getvalue()


def _panels(comparison: Comparison, axis: Axis, style: Mapping[str, Look]) -> list[_Panel]:
    swept = {task.name for sweep in comparison.sweeps for task in sweep.tasks}
    panels = [
        _Panel(
            title=task.name,
            x_title=AXES[axis],
            lines=[(c.name, style[c.name], c.bands[axis]) for c in task.contestants if axis in c.bands],
        )
        for task in comparison.tasks
        if task.name not in swept
    ]
    panels += [
        _Panel(
            title=f"{sweep.name}, at the end",
            x_title=sweep.option,
            lines=[(name, style[name], line) for name, line in sweep.lines.items()],
            values=sweep.values,
        )
        for sweep in comparison.sweeps
    ]
    return panels or [_Panel(title="no runs", x_title=AXES[axis], lines=[])]


def _draw(axes: "Axes", panel: _Panel, metric: Metric, *, number: int, width: float) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    axes.set_title(_cut(panel.title, int(width / LETTER) - 8), pad=8 * POINTS)
    axes.set_xlabel(panel.x_title)
    for i, (_, look, band) in enumerate(panel.lines):
        if band.low is not None and band.high is not None:
            around = axes.fill_between(band.cost, band.low, band.high, color=COLOURS[look.colour], alpha=0.15, lw=0)
            around.set_gid(f"band-{number}-{i}")
    for i, (_, look, band) in enumerate(panel.lines):
        every = max(1, len(band.cost) // 8)
        (line,) = axes.plot(band.cost, band.score, **_look(look), clip_on=False, solid_joinstyle="round", zorder=3)
        line.set_markevery(list(range(len(band.cost) - 1, -1, -every)))
        line.set_gid(f"curve-{number}-{i}")
    if panel.values and spread(panel.values):
        axes.set_xscale("log")
    if panel.values:
        axes.set_xlim(panel.values[0], panel.values[-1])
        axes.xaxis.set_major_locator(FixedLocator(list(panel.values)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, max((float(band.cost[-1]) for *_, band in panel.lines), default=0.0) or 1.0)
        axes.xaxis.set_major_locator(MaxNLocator(5 if width > 300 else 3, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    for line in axes.get_ygridlines():
        line.set_clip_on(False)
    axes.set_ylim(*_score_range([band for *_, band in panel.lines], metric))


def _look(look: Look) -> dict[str, Any]:
    return {"color": COLOURS[look.colour], "linestyle": DASHES[look.pattern], "marker": MARKS[look.pattern]}


def _legend(figure: "Figure", style: Mapping[str, Look], beside: int) -> None:
    """Draw names with their colour, dash and mark, above the panels."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **_look(look)) for look in style.values()]
    legend = figure.legend(
        handles,
        ["name"] * len(handles),
        loc="outside upper left",
        ncols=beside,
        frameon=False,
        handlelength=2.6,
        columnspacing=1.6,
    )
    for i, (text, line, name) in enumerate(zip(legend.get_texts(), legend.get_lines(), style, strict=True)):
        text.set_text(_cut(name, LONGEST))  # not as a label, of which some are orders to leave it out
        line.set_gid(f"legend-{i}")


def _names_a_line(style: Mapping[str, Look]) -> int:
    longest = max((min(len(name), LONGEST) for name in style), default=1)
    return max(1, int((WIDTH - 40) / (longest * LETTER + 64)))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def tick(value: float) -> str:
    """Write 20k rather than 20.0k."""
    text = count(value)
    digits = text.rstrip("kMGTP")
    return f"{float(digits):g}{text[len(digits) :]}"


def _score_range(bands: Sequence[Band], metric: Metric) -> tuple[float, float]:
    if metric == "success" or not bands:
        return 0.0, 1.0
    lows = [band.score if band.low is None else band.low for band in bands]
    highs = [band.score if band.high is None else band.high for band in bands]
    low, high = min(float(a.min()) for a in lows), max(float(a.max()) for a in highs)
    return (low, high) if high > low else (low - 0.5, high + 0.5)

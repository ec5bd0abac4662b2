"""Learning curves and sweeps as one static SVG, for a README or for paper. No browser or plotting library is needed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np

from evotext.run_folder.cost import Axis
from evotext.run_folder.record import Metric
from reports.axes import AXES
from reports.comparison import Comparison
from reports.curves import Band
from reports.figures import PALETTES, Look, metric_title, spread, styles
from reports.formats import count

WIDTH, PANEL_HEIGHT, LEGEND_HEIGHT, LEGEND_LINE = 860, 270, 34, 24
LETTER = 7.4
"""Width of a letter of a title, on average."""
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 30, 44
"""Margins of a panel."""
FONTS = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
INK, MUTED, GRID = "#1b1f24", "#59636e", "#e4e7eb"
DASHES = ("none", "8 4", "2 4", "8 4 2 4", "14 4", "14 4 2 4")
# One a pattern, in the order of plotly's markers, drawn around the origin.
MARKS = (
    '<circle r="3.4"/>',
    '<rect x="-3.2" y="-3.2" width="6.4" height="6.4"/>',
    '<path d="M0-4.6 4.6 0 0 4.6-4.6 0z"/>',
    '<path d="M0-4.4 4.4 3.4H-4.4z"/>',
    '<path d="M-3-3 3 3M-3 3 3-3" stroke-width="2.2"/>',
    '<path d="M-4 0H4M0-4V4" stroke-width="2.2"/>',
)


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """One plot of the picture."""

    title: str
    x_title: str
    lines: Sequence[tuple[Look, Band]]
    """A look and its line."""
    values: Sequence[float] = ()
    """Where the x axis has its ticks; empty for a range from 0."""

    def share(self, cost: float) -> float:
        """How far along the x axis a cost is, from 0 to 1."""
        if not self.values:
            return cost / self.end
        low, high = self.values[0], self.values[-1]
        if spread(self.values):
            return math.log(cost / low) / math.log(high / low)
        return (cost - low) / (high - low)

    @property
    def end(self) -> float:
        """The greatest cost."""
        return max((float(band.cost[-1]) for _, band in self.lines), default=0.0) or 1.0


def picture(comparison: Comparison, axis: Axis) -> str:
    """An SVG document on a white ground: a panel a sweep and a task (swept ones left out), side by side."""
    style = styles(comparison)
    panels = _panels(comparison, axis, style)
    columns = next(count for most, count in ((1, 1), (4, 2), (math.inf, 3)) if len(panels) <= most)
    legend = _legend(style)
    top = LEGEND_HEIGHT + (len(legend) - 1) * LEGEND_LINE
    height = top + -(-len(panels) // columns) * PANEL_HEIGHT
    metric = metric_title(comparison.metric, comparison.tasks)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="{FONTS}" font-size="13" role="img">',
        f"<title>{escape(metric)} on {escape(', '.join(panel.title for panel in panels))}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *(part for line in legend for part in line),
    ]
    for i, panel in enumerate(panels):
        left, down = i % columns * WIDTH / columns, top + i // columns * PANEL_HEIGHT
        parts.append(f'<g transform="translate({left:.1f} {down:g})">')
        parts += _panel(panel, comparison.metric, WIDTH / columns, title=metric if i % columns == 0 else "")
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _panels(comparison: Comparison, axis: Axis, style: Mapping[str, Look]) -> list[_Panel]:
    swept = {task.name for sweep in comparison.sweeps for task in sweep.tasks}
    panels = [
        _Panel(
            title=task.name,
            x_title=AXES[axis],
            lines=[(style[c.name], c.bands[axis]) for c in task.contestants if axis in c.bands],
        )
        for task in comparison.tasks
        if task.name not in swept
    ]
    panels += [
        _Panel(
            title=f"{sweep.name}, at the end",
            x_title=sweep.option,
            lines=[(style[name], line) for name, line in sweep.lines.items()],
            values=sweep.values,
        )
        for sweep in comparison.sweeps
    ]
    return panels or [_Panel(title="no runs", x_title=AXES[axis], lines=[])]


def ticks(high: float, most: int = 5) -> list[float]:
    """Round numbers from 0 to `high`, at most so many steps."""
    if not high > 0:
        return [0.0]
    rough = high / most
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(float(step * power) for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999)
    return [i * step for i in range(int(high / step + 1e-9) + 1)]


def _legend(style: Mapping[str, Look]) -> list[list[str]]:
    """Lines of names, each with its colour, dash and mark."""
    lines: list[list[str]] = [[]]
    x = float(LEFT)
    for name, look in style.items():
        shown = name if len(name) <= 40 else name[:39] + "…"
        width = 38 + LETTER * len(shown) + 26
        if lines[-1] and x + width > WIDTH:
            lines.append([])
            x = float(LEFT)
        y = 19 + (len(lines) - 1) * LEGEND_LINE
        colour = PALETTES["light"][look.colour]
        lines[-1].append(
            f'<g transform="translate({x:g} {y})"><path d="M0 0H30" stroke="{colour}" stroke-width="2.5" '
            f'stroke-dasharray="{DASHES[look.pattern]}"/><g transform="translate(15 0)" fill="{colour}" stroke="{colour}">'
            f'{MARKS[look.pattern]}</g><text x="38" y="4.5" fill="{INK}">{escape(shown)}</text></g>'
        )
        x += width
    return lines


def _panel(panel: _Panel, metric: Metric, width: float, *, title: str) -> list[str]:
    drawn, end = panel.lines, panel.end
    low, high = _score_range([band for _, band in drawn], metric)
    inner_width, inner_height = width - LEFT - RIGHT, PANEL_HEIGHT - TOP - BOTTOM

    def x(cost: float) -> float:
        return LEFT + panel.share(cost) * inner_width

    def y(score: float) -> float:
        return TOP + (high - score) / (high - low) * inner_height

    most = int(inner_width / LETTER)
    shown = panel.title if len(panel.title) <= most else panel.title[: most - 1] + "…"
    small = f'fill="{MUTED}" font-size="12"'
    bottom, middle = TOP + inner_height, TOP + inner_height / 2
    parts = [f'<text x="{LEFT}" y="18" font-weight="600" fill="{INK}">{escape(shown)}</text>']
    for value in [low + tick for tick in ticks(high - low)]:
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{LEFT + inner_width:.1f}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4.5:.1f}" text-anchor="end" {small}>{value:.3g}</text>')
    for value in panel.values or ticks(end, most=5 if inner_width > 250 else 3):
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 18}" text-anchor="middle" {small}>{tick(value)}</text>')
    parts.append(
        f'<text x="{LEFT + inner_width / 2:.1f}" y="{bottom + 36}" text-anchor="middle" fill="{MUTED}">'
        f"{escape(panel.x_title)}</text>"
    )
    if title:
        parts.append(
            f'<text transform="translate(13 {middle:.1f}) rotate(-90)" text-anchor="middle" fill="{MUTED}">'
            f"{escape(title)}</text>"
        )
    for look, band in drawn:
        if band.low is not None and band.high is not None:
            around = [*zip(band.cost, band.high, strict=True), *list(zip(band.cost, band.low, strict=True))[::-1]]
            points = " ".join(f"{x(cost):.1f},{y(score):.1f}" for cost, score in around)
            parts.append(f'<polygon points="{points}" fill="{PALETTES["light"][look.colour]}" opacity="0.15"/>')
    for look, band in drawn:
        colour = PALETTES["light"][look.colour]
        places = [(x(cost), y(score)) for cost, score in zip(band.cost, band.score, strict=True)]
        parts.append(
            f'<polyline points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in places)}" fill="none" stroke="{colour}" '
            f'stroke-width="2.5" stroke-linejoin="round" stroke-dasharray="{DASHES[look.pattern]}"/>'
        )
        every = max(1, len(places) // 8)
        marked = places[::-1][::every]
        parts += [
            f'<g transform="translate({a:.1f} {b:.1f})" fill="{colour}" stroke="{colour}">{MARKS[look.pattern]}</g>'
            for a, b in marked
        ]
    return parts


def tick(value: float) -> str:
    """20k rather than 20.0k."""
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

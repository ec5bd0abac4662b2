"""Learning curves as one static SVG, for a README or for paper. No browser or plotting library is needed."""

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

import numpy as np

from evotext.reports.comparison import Comparison
from evotext.reports.curves import Band
from evotext.reports.figures import METRIC_TITLES, PALETTES, styles
from evotext.reports.formats import count
from evotext.reports.records import AXES, Axis, Metric
from evotext.reports.tasks import Task

WIDTH, PANEL_HEIGHT, LEGEND_HEIGHT = 800, 270, 34
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 30, 44
"""Margins of a panel."""
FONTS = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
INK, MUTED, GRID = "#1b1f24", "#59636e", "#e4e7eb"
DASHES = ("none", "8 4", "2 4", "8 4 2 4", "14 4", "14 4 2 4")
# One a palette index, in the order of plotly's markers, drawn around the origin.
MARKS = (
    '<circle r="3.4"/>',
    '<rect x="-3.2" y="-3.2" width="6.4" height="6.4"/>',
    '<path d="M0-4.6 4.6 0 0 4.6-4.6 0z"/>',
    '<path d="M0-4.4 4.4 3.4H-4.4z"/>',
    '<path d="M-3-3 3 3M-3 3 3-3" stroke-width="2.2"/>',
    '<path d="M-4 0H4M0-4V4" stroke-width="2.2"/>',
)


def picture(comparison: Comparison, axis: Axis) -> str:
    """An SVG document with a panel a task, two side by side, on a white ground."""
    style = styles(comparison)
    columns = min(2, max(1, len(comparison.tasks)))
    rows = -(-len(comparison.tasks) // columns)
    height = LEGEND_HEIGHT + rows * PANEL_HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="{FONTS}" font-size="13" role="img">',
        f"<title>{escape(METRIC_TITLES[comparison.metric])} against {escape(AXES[axis].lower())}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *_legend(style),
    ]
    for i, task in enumerate(comparison.tasks):
        left, top = i % columns * WIDTH / columns, LEGEND_HEIGHT + i // columns * PANEL_HEIGHT
        parts.append(f'<g transform="translate({left:g} {top:g})">')
        parts += _panel(task, axis, comparison.metric, style, WIDTH / columns, titled=i % columns == 0)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def ticks(high: float, most: int = 5) -> list[float]:
    """Round numbers from 0 to `high`, at most so many steps."""
    if not high > 0:
        return [0.0]
    rough = high / most
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(float(step * power) for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999)
    return [i * step for i in range(int(high / step + 1e-9) + 1)]


def _legend(style: Mapping[str, int]) -> list[str]:
    parts, x = [], float(LEFT)
    for name, look in style.items():
        shown = name if len(name) <= 40 else name[:39] + "…"
        colour = PALETTES["light"][look]
        parts.append(
            f'<g transform="translate({x:g} 19)"><path d="M0 0H30" stroke="{colour}" stroke-width="2.5" '
            f'stroke-dasharray="{DASHES[look]}"/><g transform="translate(15 0)" fill="{colour}" stroke="{colour}">'
            f'{MARKS[look]}</g><text x="38" y="4.5" fill="{INK}">{escape(shown)}</text></g>'
        )
        x += 38 + 7.4 * len(shown) + 26
    return parts


def _panel(
    task: Task, axis: Axis, metric: Metric, style: Mapping[str, int], width: float, *, titled: bool
) -> list[str]:
    drawn = [(style[c.name], c.bands[axis]) for c in task.contestants if axis in c.bands]
    end = max((float(band.cost[-1]) for _, band in drawn), default=0.0) or 1.0
    low, high = _score_range([band for _, band in drawn], metric)
    inner_width, inner_height = width - LEFT - RIGHT, PANEL_HEIGHT - TOP - BOTTOM

    def x(cost: float) -> float:
        return LEFT + cost / end * inner_width

    def y(score: float) -> float:
        return TOP + (high - score) / (high - low) * inner_height

    shown = task.name if len(task.name) <= 48 else task.name[:47] + "…"
    small = f'fill="{MUTED}" font-size="12"'
    bottom, middle = TOP + inner_height, TOP + inner_height / 2
    parts = [f'<text x="{LEFT}" y="18" font-weight="600" fill="{INK}">{escape(shown)}</text>']
    for value in [low + tick for tick in ticks(high - low)]:
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{LEFT + inner_width:.1f}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4.5:.1f}" text-anchor="end" {small}>{value:.3g}</text>')
    for value in ticks(end):
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 18}" text-anchor="middle" {small}>{tick(value)}</text>')
    parts.append(
        f'<text x="{LEFT + inner_width / 2:.1f}" y="{bottom + 36}" text-anchor="middle" fill="{MUTED}">'
        f"{escape(AXES[axis])}</text>"
    )
    if titled:
        parts.append(
            f'<text transform="translate(13 {middle:.1f}) rotate(-90)" text-anchor="middle" fill="{MUTED}">'
            f"{escape(METRIC_TITLES[metric])}</text>"
        )
    for look, band in drawn:
        if band.low is not None and band.high is not None:
            around = [*zip(band.cost, band.high, strict=True), *list(zip(band.cost, band.low, strict=True))[::-1]]
            points = " ".join(f"{x(cost):.1f},{y(score):.1f}" for cost, score in around)
            parts.append(f'<polygon points="{points}" fill="{PALETTES["light"][look]}" opacity="0.15"/>')
    for look, band in drawn:
        colour = PALETTES["light"][look]
        places = [(x(cost), y(score)) for cost, score in zip(band.cost, band.score, strict=True)]
        parts.append(
            f'<polyline points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in places)}" fill="none" stroke="{colour}" '
            f'stroke-width="2.5" stroke-linejoin="round" stroke-dasharray="{DASHES[look]}"/>'
        )
        every = max(1, len(places) // 8)
        marked = places[::-1][::every]
        parts += [
            f'<g transform="translate({a:.1f} {b:.1f})" fill="{colour}" stroke="{colour}">{MARKS[look]}</g>'
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

"""A probe's record as one picture (SVG): energy by group, the estimators' cosines, and the sweep of sigma, side by side."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

# Groups of parameters that are shown.
SHOWN = 12
WIDTH, HEIGHT, PANEL, TOP, LINE = 1080, 330, 330, 60, 20
DARK, LIGHT, COLOURS = "#2f5d8a", "#c6d3e1", ("#2f5d8a", "#c2662d", "#7a7a7a", "#3d8a5f")


def picture(record: dict[str, Any], path: Path, *, title: str) -> None:
    """Write it."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(14, 22, title, size=15),
        *_energy(record["energy"], 14),
        *_cosines(record["estimates"], 14 + PANEL + 30),
        *_sigmas(record["sigmas"], 14 + 2 * (PANEL + 30)),
        "</svg>",
    ]
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _text(x: float, y: float, text: str, *, size: int = 11, anchor: str = "start", colour: str = "black") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
    )


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}" fill="{colour}"/>'


def _energy(energy: dict[str, dict[str, float]], left: float) -> Iterator[str]:
    yield _text(left, TOP - 14, "share of the gradient's energy (dark: in guided directions)")
    most = max((entry["share"] for entry in energy.values()), default=1.0) or 1.0
    room = PANEL - 160
    for i, (name, entry) in enumerate(list(energy.items())[:SHOWN]):
        y = TOP + i * LINE
        yield _text(left + 110, y + 12, name, anchor="end")
        yield _bar(left + 116, y + 2, room * entry["share"] / most, 13, LIGHT)
        yield _bar(left + 116, y + 5, room * entry.get("guided_share", 0.0) / most, 7, DARK)
        yield _text(left + 120 + room * entry["share"] / most, y + 12, f"{entry['share']:.2f}")


def _cosines(estimates: Sequence[dict[str, Any]], left: float) -> Iterator[str]:
    yield _text(left, TOP - 14, "cosine of one generation's estimate with the gradient")
    most = max((entry["cosine"] + entry["error"] for entry in estimates), default=0.0) or 1.0
    room = PANEL - 170
    for i, entry in enumerate(estimates):
        y = TOP + i * 2 * LINE
        end, spread = room * max(0.0, entry["cosine"]) / most, room * entry["error"] / most
        yield _text(left + 90, y + 16, entry["name"], anchor="end")
        yield _bar(left + 96, y + 4, end, 18, DARK)
        yield _bar(left + 96 + max(0.0, end - spread), y + 12, end + spread - max(0.0, end - spread), 2, "black")
        yield _text(left + 102 + end + spread, y + 17, f"{entry['cosine']:.4f}")


def _sigmas(swept: Sequence[dict[str, float]], left: float) -> Iterator[str]:
    yield _text(left, TOP - 14, "members' returns, by sigma")
    room, height = PANEL - 60, 180
    yield f'<path d="M{left + 24:.1f} {TOP} v{height} h{room}" fill="none" stroke="black" stroke-width="0.8"/>'
    for mark in (0.0, 0.5, 1.0):
        yield _text(left + 20, TOP + height * (1 - mark) + 4, f"{mark:g}", anchor="end")
    places = [left + 40 + i * (room - 40) / max(1, len(swept) - 1) for i in range(len(swept))]
    for x, entry in zip(places, swept, strict=True):
        yield _text(x, TOP + height + 16, f"{entry['sigma']:g}", anchor="middle")
    labels = {
        "success": "success",
        "better": "better than the start",
        "dead": "dead instances",
        "signal": "signal's share",
    }
    for i, ((key, label), colour) in enumerate(zip(labels.items(), COLOURS, strict=True)):
        points = " ".join(
            f"{x:.1f},{TOP + height * (1 - entry[key]):.1f}" for x, entry in zip(places, swept, strict=True)
        )
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
        yield _text(left + 30 + 150 * (i % 2), TOP + height + 38 + 16 * (i // 2), label, colour=colour)

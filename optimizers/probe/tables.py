"""A probe's record as tables and lines for a terminal."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

# Groups that are shown; the rest is added up.
SHOWN = 12


def tables(record: dict[str, Any]) -> Iterator[Table | str]:
    """Return the measurements as tables, with what they mean."""
    if record["energy"]:
        yield _energy(record["energy"])
    if record["estimates"]:
        yield _estimates(record["estimates"])
        yield f"a step along the gradient itself would gain {record['gain_of_the_gradient']:.3f} at the same KL"
    if record["sigmas"]:
        yield _sigmas(record["sigmas"])
    forecast = record["forecast"]
    yield f"forecast of eggroll: {'worth a run' if forecast['learns'] else 'not as it is'}"
    yield from (f"  {reason}" for reason in forecast["reasons"])
    yield f"  {forecast['command']}"
    if forecast["narrow"]:
        yield "or, on the matrices that hold most of the gradient's energy alone:"
        yield f"  {forecast['narrow']}"


def _energy(energy: dict[str, dict[str, float]]) -> Table:
    table = Table(title="where the policy gradient's energy lies", title_justify="left")
    entries = list(energy.items())
    left = [entry for _, entry in entries[SHOWN:]]
    rest = {key: sum(entry[key] for entry in left) for key in left[0]} if left else None
    shown = [*entries[:SHOWN], *([("others", rest)] if rest else [])]
    by_differences = "error" in entries[0][1]
    table.add_column("parameters")
    for column in ("share", "weights", *(() if by_differences else ("guided share", "guided dimensions"))):
        table.add_column(column, justify="right")
    for name, entry in shown:
        if by_differences:
            table.add_row(name, f"{entry['share']:.3f} ± {entry['error']:.3f}", f"{entry['parameters']:,}")
        else:
            guided = f"{entry['guided_share']:.3f}", f"{entry['guided_dimensions']:,}"
            table.add_row(name, f"{entry['share']:.3f}", f"{entry['parameters']:,}", *guided)
    return table


def _estimates(estimates: list[dict[str, Any]]) -> Table:
    table = Table(title="how near a generation's estimate comes to the gradient", title_justify="left")
    table.add_column("noise")
    for column in ("cosine", "signal", "dimensions", "energy", "gain at KL 0.1"):
        table.add_column(column, justify="right")
    for entry in estimates:
        table.add_row(
            entry["name"],
            f"{entry['cosine']:.4f} ± {entry['error']:.4f}",
            "" if entry["signal"] is None else f"{entry['signal']:.3f}",
            f"{entry['dimensions']:,}",
            f"{entry['energy']:.2f}",
            f"{entry['gain']:.3f}",
        )
    return table


def _sigmas(sigmas: list[dict[str, float]]) -> Table:
    table = Table(title="what members' returns tell (EGGROLL's source)", title_justify="left")
    for column in ("sigma", "success", "better than the start", "dead instances", "solved by all", "signal", "gain"):
        table.add_column(column, justify="right")
    for entry in sigmas:
        table.add_row(
            f"{entry['sigma']:g}",
            *(f"{entry[key]:.2f}" for key in ("success", "better", "dead", "solved", "signal")),
            f"{entry['gain']:.4f} ± {entry['error']:.4f}",
        )
    return table

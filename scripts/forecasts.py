"""Compares the probe's forecasts with what EGGROLL's runs gained on the same tasks: a CSV, and the table as Markdown.

    python scripts/probe.py env=NAME out=FOLDER/NAME.json ...     # of each task
    python scripts/forecasts.py FOLDER out=docs/results/forecast.csv

The runs are those of docs/results/environments.csv. The forecast is of as many generations as the run of the task had.
"""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evotext.cli import settings
from evotext.cli.errors import ConfigError
from evotext.cli.main import exit_with
from optimizers.fitness_shaping import centered_ranks
from optimizers.probe.forecast import rise

RUNS = Path("docs/results/environments.csv")
# Episodes of a generation of these runs, and of one measurement of success.
GENERATION, EVALUATED = 1024, 256
# The tasks on which the probe was made and looked at while it was.
SEEN = ("sort", "recall", "trade")
REDRAWS = 500
Row = dict[str, Any]


class Settings(settings.Settings):
    """Where the file goes."""

    out: Path = Path("docs/results/forecast.csv")


def main(words: list[str]) -> int:
    """Write the file and print the table; return the exit status. Raise ConfigError for a folder without such records."""
    told, others = settings.read(words, Settings, description=__doc__)
    files = sorted(Path(others[0]).glob("*.json")) if len(others) == 1 else []
    if not files:
        raise ConfigError(
            f"expected one folder with the JSON files of probes, got {' '.join(others) or 'none'}; see --help"
        )
    rows = table([json.loads(file.read_text(encoding="utf-8")) for file in files], runs_of(RUNS))
    with told.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print("\n".join(markdown(rows)))
    return 0


def runs_of(path: Path) -> dict[str, dict[str, str]]:
    """Return EGGROLL's run of each task."""
    with path.open(encoding="utf-8") as file:
        return {row["env"]: row for row in csv.DictReader(file) if row["algorithm"] == "eggroll"}


def table(records: list[dict[str, Any]], runs: dict[str, dict[str, str]]) -> list[Row]:
    """Return a row for each task, the greatest forecast first."""
    rows = []
    for record in records:
        run, swept = runs[record["env"]], max(record["sigmas"], key=lambda entry: entry["gain"])
        generations = int(run["episodes"]) / GENERATION
        before, after = float(run["success_before"]), float(run["success_after"])
        rows.append(
            {
                "env": record["env"],
                "seen": record["env"] in SEEN,
                "start": record["success_sampled"],
                "sigma": swept["sigma"],
                "signal": swept["signal"],
                "gain": swept["gain"],
                "error": swept["error"],
                "generations": generations,
                "forecast": rise(swept["gain"], success=record["success_sampled"], generations=generations),
                "measured_before": before,
                "measured_after": after,
                "measured": after - before,
            }
        )
    return sorted(rows, key=lambda row: -row["forecast"])


def rank_correlation(a: list[float], b: list[float]) -> float:
    """Return Spearman's rho: the correlation of ranks, ties sharing their mean rank."""
    ranks = torch.stack([centered_ranks(torch.tensor(values, dtype=torch.float64)[:, None]) for values in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


def most(rows: list[Row]) -> Tensor:
    """Return correlations of the measured gains with ones measured anew: what a perfect forecast would get."""
    generator = torch.Generator().manual_seed(0)
    success = torch.tensor([[row["measured_before"], row["measured_after"]] for row in rows], dtype=torch.float64)
    again = torch.binomial(
        torch.full((REDRAWS, *success.shape), float(EVALUATED), dtype=torch.float64),
        success.expand(REDRAWS, -1, -1),
        generator=generator,
    )
    gains = ((again[..., 1] - again[..., 0]) / EVALUATED).tolist()
    measured = [row["measured"] for row in rows]
    return torch.tensor([rank_correlation(gain, measured) for gain in gains], dtype=torch.float64)


def markdown(rows: list[Row]) -> list[str]:
    """Return the table, and the correlations of several columns on all tasks and on those that were not looked at."""
    lines = [
        "| Task | start | signal's share | gain a generation | generations | forecast rise | measured rise |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row['env']}`{' *' if row['seen'] else ''} | {row['start']:.2f} | {row['signal']:.2f} "
        f"| {row['gain']:.4f} ± {row['error']:.4f} | {row['generations']:.0f} | {row['forecast']:.2f} "
        f"| {row['measured']:+.2f} |"
        for row in rows
    ]
    for name, some in (("all", rows), ("not looked at", [row for row in rows if not row["seen"]])):
        measured = [row["measured"] for row in some]
        found = {key: rank_correlation([row[key] for row in some], measured) for key in ("forecast", "gain", "start")}
        redrawn = most(some).nanquantile(torch.tensor([0.05, 0.5], dtype=torch.float64)).tolist()
        told = ", ".join(f"{key} {value:.2f}" for key, value in found.items())
        lines += ["", f"{len(some)} tasks ({name}): {told}; measured anew {redrawn[1]:.2f} (5%: {redrawn[0]:.2f})"]
    return lines


if __name__ == "__main__":
    exit_with(lambda: main(sys.argv[1:]))

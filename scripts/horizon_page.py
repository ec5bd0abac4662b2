"""Reads the runs of `scripts/horizon.py`: a CSV, a picture, tables and the test of a crossover.

    python scripts/horizon_page.py runs/horizon runs/horizon-shipped out=docs/results

A folder is a study: the same lengths and starts, another way to settings. Writes horizon.csv and horizon.svg into `out` and
prints the tables as Markdown, study by study. Needs scipy (the extra `horizon`).
"""

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from horizons import crossover
from matplotlib.figure import Figure

from evotext.cli import settings
from evotext.cli.errors import ConfigError, configuration
from evotext.cli.main import exit_with
from evotext.reports import formats
from evotext.run_folder.find import find_runs
from evotext.run_folder.reader import read_run
from evotext.run_folder.record import RunRecord

ES = ("eggroll", "scored_es")
RL = ("grpo", "ppo")
COLOURS = {"eggroll": "#0072b2", "scored_es": "#00835f", "grpo": "#d55e00", "ppo": "#a8487f"}
DASHES = {"eggroll": "-", "scored_es": "--", "grpo": ":", "ppo": "-."}
COLUMNS = (
    *("length", "algorithm", "seed", "setting", "success_before", "success_after", "success_at_equal_episodes"),
    *("equal_episodes", "episodes", "generated_tokens", "updates", "flops", "seconds", "eval_episodes"),
)
Row = dict[str, object]


class Settings(settings.Settings):
    """Where the files go."""

    out: Path = Path("docs/results")


def main(words: list[str]) -> int:
    """Write the files and print the tables; return the exit status. Raise ConfigError for a folder without such runs."""
    told, others = settings.read(words, Settings, description=__doc__)
    folders, out = [Path(word) for word in others], told.out
    if not folders:
        raise ConfigError("expected the folder of a study, got none; see --help")
    with configuration():
        studies = {folder.name: whole_seeds(table(runs_of(folder))) for folder in folders}
    out.mkdir(parents=True, exist_ok=True)
    with (out / "horizon.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ("study", *COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows({"study": name, **row} for name, rows in studies.items() for row in rows)
    draw(studies, out / "horizon.svg")
    for name, rows in studies.items():
        files = {int(file.parent.name.rpartition("-")[2]): file for file in folders[0].glob("starts/*/start.json")}
        starts = {length: json.loads(file.read_text(encoding="utf-8")) for length, file in files.items()}
        print("\n".join([f"## {name}", "", *markdown(rows, starts), ""]))
    return 0


def runs_of(folder: Path) -> list[RunRecord]:
    """Return the reported runs that have come to their end."""
    runs = [read_run(found) for found in find_runs([folder])]
    return [run for run in runs if run.phase == "reporting" and run.status == "completed"]


def table(runs: list[RunRecord]) -> list[Row]:
    """Return a row a run, by length, contestant and seed."""
    by_length: defaultdict[int, list[RunRecord]] = defaultdict(list)
    for run in runs:
        by_length[int(run.settings.get("env.delay") or run.settings["env.steps"])].append(run)
    rows: list[Row] = []
    for length, found in sorted(by_length.items()):
        equal = min(run.points[-1].cost["episodes"] for run in found)
        for run in sorted(found, key=lambda run: (run.algorithm, run.seed or 0)):
            costs = [point.cost["episodes"] for point in run.points]
            scores = [point.score["success"] for point in run.points]
            words = [word.removeprefix("algorithm.") for word in run.overrides if word.startswith("algorithm.")]
            rows.append(
                {
                    "length": length,
                    "algorithm": run.algorithm,
                    "seed": run.seed,
                    "setting": " ".join(words),
                    "success_before": run.before["success"],
                    "success_after": run.after["success"],
                    "success_at_equal_episodes": round(float(np.interp(equal, costs, scores)), 6),
                    "equal_episodes": equal,
                    **{k: run.cost[k] for k in ("episodes", "generated_tokens", "updates", "flops", "seconds")},
                    "eval_episodes": run.eval_episodes,
                }
            )
    return rows


def whole_seeds(rows: list[Row]) -> list[Row]:
    """Leave out the seeds that some contestant lacks at some length: those of a study that was stopped."""
    cells = {(row["length"], row["algorithm"]) for row in rows}
    seeds = [{row["seed"] for row in rows if (row["length"], row["algorithm"]) == cell} for cell in cells]
    whole = set.intersection(*seeds) if seeds else set()
    if len(whole) < 2:
        raise ValueError("expected two seeds or more of each contestant at each length, got fewer: let the study go on")
    return [row for row in rows if row["seed"] in whole]


def cells_of(rows: list[Row], score: str) -> crossover.Cells:
    """Return scores by contestant and length."""
    cells: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        cells[str(row["algorithm"])][int(str(row["length"]))].append(float(str(row[score])))
    return cells


def markdown(rows: list[Row], starts: dict[int, dict[str, float]]) -> list[str]:
    """Return starts, scores at equal operations and episodes, differences, slopes and verdicts."""
    lengths = sorted({int(str(row["length"])) for row in rows})
    lines = ["| Length | Validation, greedy | Sampled | Held-out, greedy |", "|---|---|---|---|"]
    for n in lengths:
        held_out = next(float(str(row["success_before"])) for row in rows if row["length"] == n)
        found = starts.get(n, {})
        lines.append(
            f"| {n} | {found.get('greedy', np.nan):.3f} | {found.get('sampled', np.nan):.3f} | {held_out:.3f} |"
        )
    for what, score in (("operations", "success_after"), ("episodes", "success_at_equal_episodes")):
        lines += [
            "",
            f"At equal {what}:",
            "",
            *scores_table(cells_of(rows, score)),
            "",
            *tests_tables(cells_of(rows, score)),
        ]
    return lines


def scores_table(cells: crossover.Cells) -> list[str]:
    """Return a row a length: mean and extremes of each contestant, as the tests below compare means."""
    names = [name for name in (*ES, *RL) if name in cells]
    lines = [f"| Length | {' | '.join(f'`{name}`' for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for n in sorted(cells[names[0]]):
        found = [cells[name][n] for name in names]
        shown = [f"{np.mean(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in found]
        lines.append(f"| {n} | {' | '.join(shown)} |")
    return lines


def tests_tables(cells: crossover.Cells) -> list[str]:
    """Return the leads of ES over RL at each length, their slopes and the verdicts."""
    firsts, seconds = [name for name in ES if name in cells], [name for name in RL if name in cells]
    gaps = crossover.gaps(cells, firsts, seconds)
    lines = ["| Pair | Length | Difference | Adjusted p |", "|---|---|---|---|"]
    for g in gaps:
        difference = f"{g.difference:+.2f} [{g.low:+.2f}, {g.high:+.2f}]"
        lines.append(f"| `{g.first}` less `{g.second}` | {g.length} | {difference} | {formats.p_value(g.p_value)} |")
    lines += ["", "| Pair | Change as the length doubles | Adjusted p | Crossover |", "|---|---|---|---|"]
    for s in crossover.slopes(cells, firsts, seconds):
        own = [gap for gap in gaps if (gap.first, gap.second) == (s.first, s.second)]
        slope = f"{s.slope:+.3f} [{s.low:+.3f}, {s.high:+.3f}]"
        told = f"{formats.p_value(s.p_value)} | {crossover.verdict(own)}"
        lines.append(f"| `{s.first}` less `{s.second}` | {slope} | {told} |")
    return lines


def draw(studies: dict[str, list[Row]], file: Path) -> None:
    """Draw success over length, a panel a study: a line a contestant, a point a run."""
    figure = Figure(figsize=(max(6.0, 4.5 * len(studies)), 3.6), layout="constrained")
    panels = figure.subplots(1, len(studies), sharey=True, squeeze=False)[0]
    for axes, (title, rows) in zip(panels, studies.items(), strict=True):
        cells, before = cells_of(rows, "success_after"), cells_of(rows, "success_before")
        lengths = sorted(next(iter(cells.values())))
        starts = [float(np.mean(next(iter(before.values()))[n])) for n in lengths]
        axes.plot(lengths, starts, color="#4b4b4b", linewidth=1, label="before")
        for name, found in cells.items():
            means = [np.mean(found[n]) for n in lengths]
            axes.plot(lengths, means, DASHES[name], color=COLOURS[name], marker="o", label=name)
            for n in lengths:
                axes.plot([n] * len(found[n]), found[n], ".", color=COLOURS[name], alpha=0.4, markersize=4)
        axes.set(xscale="log", xticks=lengths, xticklabels=map(str, lengths), ylim=(-0.02, 1.02))
        axes.set_title(title if len(studies) > 1 else "")
        axes.set(xlabel="turns between key and question")
        axes.minorticks_off()
    panels[0].set_ylabel("held-out success")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=5, loc="outside lower center")
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    exit_with(lambda: main(sys.argv[1:]))

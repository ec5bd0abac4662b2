"""Reasons against comparing runs, and other notes for the reader.

Runs come by contestant, and are those that the figures count.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from evotext.run_folder.record import NAN, RunRecord

Groups = Mapping[str, Sequence[RunRecord]]

# Equal weights, instances and decoding give equal shares of success; arithmetic on other devices moves them by less.
SAME_START = 0.02
# The last generation may not fit the budget, or have longer episodes than expected: contestants may differ by this factor.
SAME_SPENDING = 1.1
# Settings that are named or flagged elsewhere, or of no consequence to scores.
_EXPECTED_TO_DIFFER = (
    *("algorithm", "env", "model", "budget", "seed", "draw", "tracker", "hydra", "resume", "replay", "debug"),
)


def differences_that_matter(groups: Groups) -> list[str]:
    """Return reasons why these scores must not be compared."""
    runs = [run for group in groups.values() for run in group]
    reasons = []
    budgets = distinct(f"{run.budget_limit:,.10g} {run.budget_unit}" for run in runs if np.isfinite(run.budget_limit))
    if len(budgets) > 1:
        reasons.append(f"budgets differ ({' / '.join(budgets)})")
    else:
        spent = {name: np.mean([run.compared_at for run in group]) for name, group in groups.items() if group}
        known = [float(mean) for mean in spent.values() if np.isfinite(mean)]
        if known and max(known) > SAME_SPENDING * min(known):
            unit = next((run.budget_unit for run in runs), "")
            reasons.append(f"unequal amounts of the budget were spent ({min(known):,.0f} to {max(known):,.0f} {unit})")
    for what, found in (
        ("decoding at evaluation differs", distinct(run.decoding for run in runs)),
        ("instances at evaluation differ", distinct(run.split for run in runs)),
        ("numbers of evaluation episodes differ", distinct(_count(run.eval_episodes) for run in runs)),
    ):
        if len(found) > 1:
            reasons.append(f"{what} ({' / '.join(found)})")
    starts = [score for run in runs if np.isfinite(score := run.before.get("success", NAN))]
    if starts and max(starts) - min(starts) > SAME_START:
        reasons.append(
            f"runs do not start alike (success of {min(starts):.2f} to {max(starts):.2f} before training): "
            "other weights, or another way of evaluating"
        )
    devices = distinct(run.device for run in runs)
    if len(devices) > 1 and any(run.budget_unit == "seconds" for run in runs):
        reasons.append(f"a budget of seconds was spent on unlike devices ({' / '.join(devices)})")
    return reasons


def unequal_tuning(groups: Groups, trials: Sequence[RunRecord]) -> list[str]:
    """Return reasons why these scores must not be compared after such tuning. trials: its runs, of all tasks."""
    runs = [run for group in groups.values() for run in group]
    envs = {run.env for run in runs}
    here = [trial for trial in trials if trial.env in envs]
    if not here:
        return []
    counts = {name: sum(t.algorithm == name for t in here) for name in sorted({run.algorithm for run in runs})}
    reasons = []
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name}: {count}" for name, count in counts.items())
        reasons.append(f"algorithms were tuned by unequal numbers of trials ({told})")
    seeds = sorted({run.seed for run in runs if run.seed is not None} & {trial.seed for trial in here})
    if seeds:
        reasons.append(f"seeds of tuning are reported too ({', '.join(map(str, seeds))})")
    return reasons


def differences_to_know(groups: Groups) -> list[str]:
    """Return other differences between the runs."""
    runs = [run for group in groups.values() for run in group]
    notes = []
    seeds = {
        name: ", ".join(map(str, sorted({run.seed for run in group if run.seed is not None}))) or "unknown"
        for name, group in groups.items()
        if group
    }
    if len(distinct(seeds.values())) > 1:
        notes.append(f"seeds differ ({'; '.join(f'{name}: {numbers}' for name, numbers in seeds.items())})")
    devices = distinct(run.device for run in runs)
    if len(devices) > 1:
        notes.append(f"devices differ ({' / '.join(devices)}): seconds and memory are not comparable")
    for package in dict.fromkeys(name for run in runs for name in run.versions):
        found = distinct(run.versions.get(package, "unknown") for run in runs)
        if len(found) > 1:
            notes.append(f"versions of {package} differ ({' / '.join(found)})")
    settings = [
        {key: value for key, value in run.settings.items() if key.split(".")[0] not in _EXPECTED_TO_DIFFER}
        for run in runs
        if run.settings
    ]
    for key in dict.fromkeys(key for each in settings for key in each):
        found = distinct(each.get(key, "absent") for each in settings)
        if len(found) > 1:
            notes.append(f"setting {key} differs ({' / '.join(found)})")
    return notes


def not_counted(counted: Groups, others: Groups) -> list[str]:
    """Count each contestant's runs that ended badly: leaving them out flatters an algorithm that often fails."""
    notes = []
    for name, runs in others.items():
        lost = [run.status if run.status != "completed" else "without a final score" for run in runs if not scored(run)]
        if lost:
            kinds = ", ".join(f"{lost.count(kind)} {kind}" for kind in distinct(lost))
            notes.append(f"{name}: {len(lost)} of {len(counted[name]) + len(lost)} runs not counted ({kinds})")
    return notes


def faults(counted: Groups) -> list[str]:
    """Count each contestant's episodes that faults of the environment ended: they lower scores, some more than others."""
    notes = []
    for name, runs in counted.items():
        ended = [
            f"{lost:,} of {sum(run.cost.get(key, 0) for run in runs):,.0f} {what} episodes"
            for key, what, lost in (
                ("episodes", "training", sum(sum(run.faults.values()) for run in runs)),
                ("evaluation_episodes", "measured", sum(sum(run.evaluation_faults.values()) for run in runs)),
            )
            if lost
        ]
        if ended:
            kinds = distinct(kind.replace("_", " ") for run in runs for kind in (*run.faults, *run.evaluation_faults))
            notes.append(f"{name}: faults of the environment ended {' and '.join(ended)} ({', '.join(kinds)})")
    return notes


def scored(run: RunRecord) -> bool:
    """Return whether the run completed and measured something at its end."""
    return run.status == "completed" and any(np.isfinite(score) for score in run.after.values())


def distinct(words: Iterable[str]) -> list[str]:
    """Return each word once, without empty ones, in order."""
    return [word for word in dict.fromkeys(words) if word]


def _count(value: float) -> str:
    return f"{value:.0f}" if np.isfinite(value) else ""

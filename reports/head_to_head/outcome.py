"""The results of finished jobs: whether a job is done, the best setting of a search, and the search's cost."""

import json
import math
from collections.abc import Iterable

from evotext.run_folder import names
from evotext.run_folder.ending import ENDED_WELL, final_score
from evotext.run_folder.reader import read_run
from evotext.run_folder.record import NAN, RunRecord

from .plan import Job

COSTS = ("episodes", "generated_tokens", "updates", "flops", "seconds")


def record(job: Job) -> RunRecord | None:
    """Return the record of a job that came to its end with these very words, a pruner's end included; None otherwise."""
    try:
        words = json.loads((job.folder / names.WORDS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    run = read_run(job.folder)
    return run if run.status in ENDED_WELL and words == list(job.words) else None


def best(jobs: Iterable[Job]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the setting with the greatest score on validation instances (`final_score`) for every (algorithm, task).

    It is read where the budget ended, as it is in the report. Between equals the earlier one, so that the shipped
    setting stays unless another is better. A trial that was pruned is not chosen; pairs none of whose trials was
    completed are left out.
    """
    found: dict[tuple[str, str], tuple[float, tuple[str, ...]]] = {}
    for job in jobs:
        run = record(job)
        score = final_score(run) if run and run.status == "completed" else None
        pair = job.algorithm, job.env
        if score is not None and (pair not in found or score > found[pair][0]):
            found[pair] = score, job.setting
    return {pair: setting for pair, (_, setting) in found.items()}


def trials(jobs: Iterable[Job]) -> list[dict[str, object]]:
    """Return every trial with its score where it ended and its cost; null where it failed."""
    rows: list[dict[str, object]] = []
    for job in jobs:
        run = record(job)
        figures = {
            "success_before": run.before["success"] if run else NAN,
            "success_after": run.after["success"] if run else NAN,
            "return_before": run.before["return"] if run else NAN,
            "return_after": run.after["return"] if run else NAN,
            **{key: run.cost[key] if run else NAN for key in COSTS},
        }
        row: dict[str, object] = {
            "algorithm": job.algorithm,
            "env": job.env,
            "setting": list(job.setting),
            "status": run.status if run else None,
        }
        rows.append(row | {key: value if math.isfinite(value) else None for key, value in figures.items()})
    return rows

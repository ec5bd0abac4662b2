"""What finished jobs say: whether a job is done, the best setting of a search, and what the search took."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from reports.head_to_head.plan import Job

COSTS = ("episodes", "generated_tokens", "updates", "flops", "seconds")


def record(job: Job) -> Mapping[str, Any] | None:
    """The summary of a job that was completed with these very words; None otherwise."""
    try:
        summary = json.loads((job.folder / "summary.json").read_text(encoding="utf-8"))
        words = (job.folder / "words.json").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    done = summary.get("status") == "completed" and json.loads(words) == list(job.words)
    return summary if done else None


def best(jobs: Iterable[Job]) -> dict[tuple[str, str], tuple[str, ...]]:
    """For every (algorithm, task) the setting with the greatest success on validation instances.

    Between equals the earlier one, so that the shipped setting stays unless another is better. Pairs none of whose
    trials was completed are left out.
    """
    found: dict[tuple[str, str], tuple[float, tuple[str, ...]]] = {}
    for job in jobs:
        summary = record(job)
        if summary is None:
            continue
        score = float(summary["eval"]["success_after"])
        pair = job.algorithm, job.env
        if pair not in found or score > found[pair][0]:
            found[pair] = score, job.setting
    return {pair: setting for pair, (_, setting) in found.items()}


def trials(jobs: Iterable[Job]) -> list[dict[str, object]]:
    """Every trial with its score and cost; null where it was not completed."""
    rows: list[dict[str, object]] = []
    for job in jobs:
        summary = record(job)
        rows.append(
            {
                "algorithm": job.algorithm,
                "env": job.env,
                "setting": list(job.setting),
                "success_before": summary["eval"]["success_before"] if summary else None,
                "success_after": summary["eval"]["success_after"] if summary else None,
                **{key: summary["cost"][key] if summary else None for key in COSTS},
            }
        )
    return rows

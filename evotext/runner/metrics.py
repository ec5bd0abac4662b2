"""Metrics of every run, whatever the algorithm; docs/metrics.md explains each name."""

from collections import Counter
from collections.abc import Mapping

from evotext.rollouts.task import Task
from evotext.runner.evaluation import Evaluation, Score, scores_by_task
from evotext.types import Outcome, Trajectories, UpdateReport


def generation_metrics(
    batch: Trajectories, report: UpdateReport, *, task: Task, faults: Counter[str], dropped: int
) -> dict[str, float]:
    """Return the metrics of a generation, those of the algorithm included, and of a mixture those of each task.

    faults, dropped: training episodes that a fault ended, by kind, and generations that were dropped, of the run so far.
    """
    metrics = {
        "rollout_seconds": batch.cost.rollout_seconds,
        "env_seconds": batch.cost.env_seconds + report.cost.env_seconds,
        "update_seconds": report.cost.update_seconds,
        "skipped": float(report.outcome is not Outcome.CHANGED),
        "dropped_generations": float(dropped),
    }
    if len(batch.return_B):
        metrics["return_mean"] = float(batch.return_B.mean())
        metrics["fault_rate"] = float(batch.faulty_B.double().mean())
        if batch.success_B is not None:
            metrics["success_rate"] = float(batch.success_B.double().mean())
        metrics |= {f"reward/{name}": float(part_B.mean()) for name, part_B in batch.reward_parts.items()}
        metrics |= _by_name(scores_by_task(batch, task))
    return metrics | {f"faults/{kind}": float(count) for kind, count in faults.items()} | report.metrics


def evaluation_metrics(evaluation: Evaluation, *, spent: float, divergence: float) -> dict[str, float]:
    """Return the metrics of a measurement. spent: share of the budget. divergence: KL from the starting policy."""
    metrics = {
        "eval/return": evaluation.mean_return,
        "eval/spent": spent,
        "eval/mean_length": evaluation.mean_tokens,
        "eval/kl_from_start": divergence,
        "eval/fault_rate": evaluation.fault_share,
        "eval/seconds": evaluation.cost.seconds,
    }
    if evaluation.success is not None:
        metrics["eval/success"] = evaluation.success
    metrics |= {f"eval/reward/{name}": mean for name, mean in evaluation.reward_parts.items()}
    metrics |= {f"eval/{name}": value for name, value in _by_name(evaluation.by_task).items()}
    return metrics | {f"eval/pass@{k}": share for k, share in evaluation.pass_at.items()}


def _by_name(scores: Mapping[str, Score]) -> dict[str, float]:
    """Return success, where it is known, and return under the name of each task."""
    found = {f"return/{name}": score.mean_return for name, score in scores.items()}
    return found | {f"success/{name}": score.success for name, score in scores.items() if score.success is not None}

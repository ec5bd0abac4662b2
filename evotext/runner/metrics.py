"""Metrics of every run, whatever the algorithm; docs/metrics.md explains each name."""

from collections import Counter

from evotext.runner.evaluation import Evaluation
from evotext.types import Outcome, Trajectories, UpdateReport


def generation_metrics(
    batch: Trajectories, report: UpdateReport, *, faults: Counter[str], dropped: int
) -> dict[str, float]:
    """Return the metrics of a generation, those of the algorithm included.

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
    return metrics | {f"eval/pass@{k}": share for k, share in evaluation.pass_at.items()}

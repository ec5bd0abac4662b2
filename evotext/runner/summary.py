"""`summary.json`: what a run was, how it ended and what it cost."""

import math
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from evotext.distributed import collectives
from evotext.run_folder.cost import on_axes, totals
from evotext.run_folder.schema import BudgetRecord, EvaluationRecord, Phase, Status, Summary
from evotext.runner.budget import Budget
from evotext.runner.evaluation import Evaluator
from evotext.runner.memory import peak_memory_bytes
from evotext.runner.standing import Standing

_PACKAGES = ("evotext", "torch", "transformers", "gymnasium", "numpy", "hydra-core")


def summarise(
    *,
    names: dict[str, str],
    seed: int,
    phase: Phase,
    status: Status,
    reason: str | None,
    budget: Budget,
    evaluator: Evaluator,
    standing: Standing,
    device: torch.device,
) -> Summary:
    """Return the record that docs/metrics.md describes. names: what `algorithm`, `env` and `model` are called."""
    first, last, best, cost = standing.first, standing.last, standing.best, standing.cost
    return Summary(
        algorithm=names["algorithm"],
        env=names["env"],
        model=names["model"],
        seed=seed,
        phase=phase,
        status=status,
        reason=reason,
        budget=BudgetRecord(unit=budget.unit, limit=budget.limit, spent=budget.spent(cost)),
        eval=EvaluationRecord(
            return_before=_finite(first.mean_return) if first else None,
            return_after=_finite(last.mean_return) if last else None,
            success_before=first.success if first else None,
            success_after=last.success if last else None,
            return_best=_finite(best.mean_return) if best else None,
            success_best=best.success if best else None,
            best_generation=standing.best_generation if best else None,
            episodes=evaluator.episodes,
            decoding=evaluator.decoding,
            split=evaluator.split,
            samples=evaluator.samples,
            pass_at_before=dict(first.pass_at) if first else {},
            pass_at_after=dict(last.pass_at) if last else {},
            sampled_return_before=_finite(first.sampled_return) if first else None,
            sampled_return_after=_finite(last.sampled_return) if last else None,
        ),
        cost=totals(cost, peak_memory_bytes=max(standing.peak_memory_bytes, peak_memory_bytes(device))),
        evaluation_cost=on_axes(standing.evaluation_cost),
        faults=dict(standing.faults),
        evaluation_faults=dict(standing.evaluation_faults),
        saved_generation=standing.saved_generation,
        dropped_generations=standing.dropped,
        resumes=standing.resumes,
        processes=collectives.world_size(),
        versions=versions(),
        device=device_name(device),
    )


def _finite(value: float | None) -> float | None:
    """JSON has no word for what is not finite."""
    return value if value is not None and math.isfinite(value) else None


def versions() -> dict[str, str]:
    """Of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def device_name(device: torch.device) -> str:
    """What ran the model: a GPU's name, or `cpu` with the number of threads."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"

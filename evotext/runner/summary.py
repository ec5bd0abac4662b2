"""Makes `summary.json`: a run's names, ending, scores and cost."""

import math
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from evotext.devices import has_own_memory
from evotext.distributed import collectives
from evotext.run_folder.cost import on_axes, totals
from evotext.run_folder.schema import BudgetRecord, EvaluationRecord, Phase, Status, Summary, TaskRecord
from evotext.runner.budget import Budget
from evotext.runner.closing import closing_lines
from evotext.runner.evaluation import Evaluation, Evaluator, Score
from evotext.runner.memory import peak_memory_bytes
from evotext.runner.run_state import RunState

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
    state: RunState,
    device: torch.device,
) -> Summary:
    """Return the record that docs/metrics.md describes. names: what `algorithm`, `env` and `model` are called."""
    first, last, best, cost = state.first, state.last, state.best, state.cost
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
            **_at_both_ends(first, last),
            return_best=_finite(best.mean_return) if best else None,
            success_best=best.success if best else None,
            best_generation=state.best_generation if best else None,
            episodes=evaluator.episodes,
            decoding=evaluator.decoding,
            split=evaluator.split,
            samples=evaluator.samples,
            pass_at_before=dict(first.pass_at) if first else {},
            pass_at_after=dict(last.pass_at) if last else {},
            sampled_return_before=_finite(first.sampled_return) if first else None,
            sampled_return_after=_finite(last.sampled_return) if last else None,
            by_task={
                name: TaskRecord(**_at_both_ends(first.by_task.get(name), last.by_task.get(name)))
                for name in {**first.by_task, **last.by_task}
            }
            if first and last
            else {},
        ),
        cost=totals(cost, peak_memory_bytes=max(state.peak_memory_bytes, peak_memory_bytes(device))),
        evaluation_cost=on_axes(state.evaluation_cost),
        faults=dict(state.faults),
        evaluation_faults=dict(state.evaluation_faults),
        saved_generation=state.saved_generation,
        dropped_generations=state.dropped,
        resumes=state.resumes,
        notes=[*state.notes, *closing_lines(state, budget)],
        processes=collectives.world_size(),
        versions=versions(),
        device=device_name(device),
    )


def _at_both_ends(before: Evaluation | Score | None, after: Evaluation | Score | None) -> dict[str, Any]:
    """Return the fields of a `TaskRecord`."""
    return {
        "return_before": _finite(before.mean_return) if before else None,
        "return_after": _finite(after.mean_return) if after else None,
        "success_before": before.success if before else None,
        "success_after": after.success if after else None,
    }


def _finite(value: float | None) -> float | None:
    """Return the value, or None if it is not finite: JSON has no word for that."""
    return value if value is not None and math.isfinite(value) else None


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def device_name(device: torch.device) -> str:
    """Return what ran the model: a GPU's name, or `cpu` with the number of threads."""
    if device.type == "cpu":
        return f"cpu, {torch.get_num_threads()} threads"
    return str(torch.get_device_module(device).get_device_name(device)) if has_own_memory(device) else device.type

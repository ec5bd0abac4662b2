"""`summary.json`: what a run was, how it ended and what it cost."""

import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch

from evotext.distributed import collectives
from evotext.runner.budget import Budget
from evotext.runner.evaluation import Evaluation, Evaluator
from evotext.runner.memory import peak_memory_bytes
from evotext.runner.standing import Standing

Status = Literal["completed", "interrupted", "pruned", "failed"]
_PACKAGES = ("evotext", "torch", "transformers", "gymnasium", "numpy", "hydra-core")


def summarise(
    *,
    names: dict[str, str],
    seed: int,
    status: Status,
    reason: str | None,
    budget: Budget,
    evaluator: Evaluator,
    standing: Standing,
    device: torch.device,
) -> dict[str, object]:
    """The record as docs/metrics.md describes it. names: what `algorithm`, `env` and `model` are called."""
    first, last, cost = standing.first, standing.last, standing.cost
    peak = max(standing.peak_memory_bytes, peak_memory_bytes(device))
    return {
        **names,
        "seed": seed,
        "status": status,
        **({"reason": reason} if reason else {}),
        "budget": {"unit": budget.unit, "limit": budget.limit, "spent": budget.spent(cost)},
        "eval": {
            "return_before": first.mean_return if first else None,
            "return_after": last.mean_return if last else None,
            "success_before": first.success if first else None,
            "success_after": last.success if last else None,
            "episodes": evaluator.episodes,
            "decoding": evaluator.decoding,
            "samples": evaluator.samples,
            "pass_at_before": _by_k(first),
            "pass_at_after": _by_k(last),
            "sampled_return_before": first.sampled_return if first else None,
            "sampled_return_after": last.sampled_return if last else None,
        },
        "cost": {**asdict(cost), "seconds": cost.seconds, "peak_memory_bytes": peak},
        "evaluation_cost": {
            "episodes": standing.evaluation_cost.episodes,
            "generated_tokens": standing.evaluation_cost.generated_tokens,
            "seconds": standing.evaluation_cost.seconds,
            "flops": standing.evaluation_cost.flops,
        },
        "faults": dict(standing.faults),
        "evaluation_faults": dict(standing.evaluation_faults),
        "dropped_generations": standing.dropped,
        "resumes": standing.resumes,
        "processes": collectives.world_size(),
        "versions": versions(),
        "device": device_name(device),
    }


def _by_k(evaluation: Evaluation | None) -> dict[str, float]:
    """pass@k by k, which JSON wants as text."""
    return {str(k): share for k, share in evaluation.pass_at.items()} if evaluation else {}


def write_json(path: Path, record: dict[str, object]) -> None:
    """Write aside and rename, so that a reader never sees half a file."""
    aside = path.with_name(path.name + ".writing")
    aside.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    os.replace(aside, path)


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

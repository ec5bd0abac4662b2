"""Runs as reports read them, without folders."""

from pathlib import Path
from typing import Any

from evotext.run_folder.record import RunRecord


def run_record(
    algorithm: str, score: float, *, env: str = "sort", seed: int = 0, draw: int = 0, **more: Any
) -> RunRecord:
    """A completed run that ended with this success, with the setting that its search has chosen. more: of `RunRecord`."""
    return RunRecord(
        **{
            "folder": Path(f"{env}-{algorithm}-{draw}-{seed}"),
            "algorithm": algorithm,
            "env": env,
            "model": "tiny",
            "seed": seed,
            "draw": draw,
            "status": "completed",
            "before": {"success": 0.1},
            "after": {"success": score},
            "decoding": "greedy",
            "settings": {"algorithm.lr": str(draw), "env.name": env},
        }
        | more
    )

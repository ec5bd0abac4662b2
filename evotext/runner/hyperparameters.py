"""What a run was configured with, flat, so that trackers can set runs side by side."""

from collections.abc import Iterator
from pathlib import Path

import yaml

Hyperparameter = float | int | str | bool
# What changes where and how fast a run goes, or who watches, but not what it computes.
_LEFT_OUT = ("device", "threads", "rows", "debug", "resume", "allow_custom_targets", "checkpoint", "tracker")
_GROUPS = ("algorithm", "env", "model", "adapter", "budget")


def hyperparameters(folder: Path) -> dict[str, Hyperparameter]:
    """From the run's folder: what was chosen of each group, and every value by its dotted key.

    Lists are text; null is left out. Empty if the folder has no configuration, as that of a run that no command started.
    """
    config, hydra = folder / ".hydra" / "config.yaml", folder / ".hydra" / "hydra.yaml"
    if not (config.is_file() and hydra.is_file()):
        return {}
    choices = yaml.safe_load(hydra.read_text(encoding="utf-8"))["hydra"]["runtime"]["choices"]
    chosen = {group: str(choices[group]) for group in _GROUPS if choices.get(group)}
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    return chosen | dict(_leaves({k: v for k, v in values.items() if k not in _LEFT_OUT}, ""))


def _leaves(node: dict[str, object], path: str) -> Iterator[tuple[str, Hyperparameter]]:
    for key, value in node.items():
        if str(key).startswith("_"):
            continue
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        elif value is not None:
            yield f"{path}{key}", value if isinstance(value, float | int | str) else str(value)

"""The cost of a run, and the names of its parts in the run's folder."""

from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Everything that was spent. Costs add up with `+`."""

    episodes: int = 0
    """Finished episodes."""
    env_steps: int = 0
    """Calls of an environment's `step`, those that failed included."""
    generated_tokens: int = 0
    """Tokens that the policy wrote, end tokens included."""
    updates: int = 0
    """Changes of the weights; a generation that changes nothing counts as none."""
    rollout_seconds: float = 0.0
    """Generating text, environments excluded."""
    env_seconds: float = 0.0
    """Inside environments: reset and step."""
    update_seconds: float = 0.0
    """Turning trajectories into new weights."""
    flops: float = 0.0
    """Floating-point operations of matrix products: 2 a weight and position forward, 4 backward; ES's updates too."""
    backward_flops: float = 0.0
    """Those of `flops` that were spent in backward passes."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    @property
    def seconds(self) -> float:
        """All seconds of training: rollout, environments and updates."""
        return self.rollout_seconds + self.env_seconds + self.update_seconds


Axis = Literal["episodes", "generated_tokens", "seconds", "flops"]
AXES: tuple[Axis, ...] = get_args(Axis)
"""The counts since the run began on every line of `metrics.jsonl`, and of a measurement: curves are drawn over these."""

COSTS = (*(f.name for f in fields(Cost)), "seconds", "peak_memory_bytes")
"""The totals of training, under `cost` in `summary.json`."""

EVALUATION = "evaluation_"
EVALUATION_COSTS = tuple(EVALUATION + name for name in AXES)
"""The totals of the measurements: under `evaluation_cost` in `summary.json`, there without the prefix."""


def totals(cost: Cost, *, peak_memory_bytes: int) -> dict[str, float]:
    """Return a cost by the names of `COSTS`."""
    return {**asdict(cost), "seconds": cost.seconds, "peak_memory_bytes": peak_memory_bytes}


def on_axes(cost: Cost) -> dict[str, float]:
    """Return a cost by the names of `AXES`."""
    return {axis: getattr(cost, axis) for axis in AXES}

"""A forecast and a command line from the measurements."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .gradient import Estimate
from .returns import SigmaFigures

# Below this cosine a generation's step is noise to all intents; set on recall and sort, where scored ES learned from 0.01 on.
LEAST_COSINE = 0.005
# Fewer scored episodes a generation than this, and what one generation teaches is a handful of instances.
LEAST_EPISODES = 4


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The outlook of a run."""

    learns: bool
    """Whether the run should learn."""
    score: float
    """The rank of a task: room to improve times the best cosine."""
    reasons: tuple[str, ...]
    """The reasons, one line each."""
    command: str
    """A command line to paste."""


def forecast(
    estimates: Sequence[Estimate],
    sigmas: Sequence[SigmaFigures],
    *,
    success: float,
    scored: int,
    words: tuple[str, str],
) -> Forecast:
    """Return the forecast. success: at the start, sampled. scored: episodes with an advantage. words: of model and task."""
    best = max(estimates, key=lambda e: e.cosine) if estimates else None
    cosine = 0.0 if best is None else best.cosine
    returns = max((figures.signal for figures in sigmas), default=0.0)
    reasons = [f"sampled success at the start is {success:.2f}; {scored} episodes of a generation carry a signal"]
    if best is None or scored < LEAST_EPISODES:
        reasons.append(
            "too few episodes differ from their group: warm the model up, sample more, or make the task easier"
        )
    else:
        reasons.append(
            f"the nearest estimate is `{best.name}`: cosine {cosine:.4f} a generation with the policy gradient"
        )
    if sigmas:
        reasons.append(f"members' returns are chance but for a share of {returns:.2f} at the best sigma")
    learns = scored >= LEAST_EPISODES and cosine >= LEAST_COSINE
    options = ["algorithm=scored_es"]
    if best is not None and best.name.startswith("selected"):
        options.append(f"algorithm.select={best.name.split()[1]}")
    return Forecast(
        learns=learns,
        score=math.sqrt(max(0.0, success * (1 - success))) * max(0.0, cosine) if scored >= LEAST_EPISODES else 0.0,
        reasons=tuple(reasons),
        command=" ".join(["python scripts/train.py", *options, *words]),
    )

"""A forecast and a command line from the measurements.

The gain of a generation is measured to first order: by EGGROLL from members' returns, by scored ES from the policy gradient
(`returns.py`, `gradient.py`). A run of n generations cannot gain more than the room that is left, 1 - s. If each gains the same
share of what is left, the rise is

    (1 - s) (1 - exp(-n gain / (1 - s)))

No figure in it was chosen by how runs turned out; what is left out is that steps get better or worse on the way.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .gradient import Estimate
from .returns import SigmaFigures

# Fewer scored episodes a generation than this, and what one generation teaches is a handful of instances.
LEAST_EPISODES = 4
# A run is worth its budget if success rises by this much, by a gain that is so many standard errors from 0.
LEAST_RISE, LEAST_ERRORS = 0.1, 2.0


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The outlook of a run."""

    learns: bool
    """Whether the run should learn."""
    eggroll: float
    """Rise of success that EGGROLL is forecast."""
    scored_es: float
    """Rise of success that scored ES is forecast."""
    reasons: tuple[str, ...]
    """The reasons, one line each."""
    command: str
    """A command line to paste."""


def rise(gain: float, *, success: float, generations: float) -> float:
    """Return how much success rises in so many generations that each gain as much at first; at least 0."""
    room = 1.0 - success
    return room * -math.expm1(-generations * max(0.0, gain) / room) if room > 0 else 0.0


def forecast(
    estimates: Sequence[Estimate],
    sigmas: Sequence[SigmaFigures],
    *,
    success: float,
    scored: int,
    generations: int,
    members: int,
    words: tuple[str, ...],
) -> Forecast:
    """Return the forecast of a run of so many generations.

    success: at the start, sampled. scored: episodes with an advantage. members: of the sweep. words: of model and task.
    """
    estimate = max(estimates, key=lambda e: e.gain, default=None) if scored >= LEAST_EPISODES else None
    swept = max(sigmas, key=lambda figures: figures.gain, default=None)
    sure = swept is not None and swept.gain >= LEAST_ERRORS * swept.error
    by_returns = 0.0 if swept is None else rise(swept.gain, success=success, generations=generations)
    by_scores = 0.0 if estimate is None else rise(estimate.gain, success=success, generations=generations)
    reasons = [f"sampled success at the start is {success:.2f}; {scored} episodes of a generation carry a signal"]
    if swept is not None:
        told = "" if sure else ", which may be chance"
        reasons.append(
            f"members' returns at sigma {swept.sigma:g} gain {swept.gain:.4f} ± {swept.error:.4f} a generation{told}: "
            f"{generations} generations of eggroll raise success by {by_returns:.2f}"
        )
    if estimate is not None:
        reasons.append(
            f"scores with noise `{estimate.name}` gain {estimate.gain:.4f} a generation: "
            f"{generations} generations of scored_es raise success by {by_scores:.2f}"
        )
    elif scored < LEAST_EPISODES:
        reasons.append(
            "too few episodes differ from their group: warm the model up, sample more, or make the task easier"
        )
    if swept is not None and sure and by_returns >= by_scores:
        options = ["algorithm=eggroll", f"algorithm.sigma={swept.sigma:g}", f"algorithm.population={members}"]
    else:
        options = ["algorithm=scored_es"]
        if estimate is not None and estimate.name.startswith("selected"):
            options.append(f"algorithm.select={estimate.name.split()[1]}")
    return Forecast(
        learns=max(by_scores, by_returns if sure else 0.0) >= LEAST_RISE,
        eggroll=by_returns,
        scored_es=by_scores,
        reasons=tuple(reasons),
        command=" ".join(["evotext train", *options, *words]),
    )

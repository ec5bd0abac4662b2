"""A forecast and a command line from the measurements.

The gain of a generation of EGGROLL is measured to first order, from members' returns (`returns.py`). A run of n generations
cannot gain more than the room that is left, 1 - s. If each gains the same share of what is left, the rise is

    (1 - s) (1 - exp(-n gain / (1 - s)))

No figure in it was chosen by how runs turned out; what is left out is that steps get better or worse on the way.

Scored ES has no forecast. The gain of its step (`gradient.py`) is measured on the episodes that the step was estimated from
and says nothing of the noise that steps add up: over a run it promises a rise of 0.5 to 0.8 wherever there is a signal.
"""

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from .gradient import KL, Estimate
from .returns import SigmaFigures

# Fewer scored episodes a generation than this, and what one generation teaches is a handful of instances.
LEAST_EPISODES = 4
# A run of EGGROLL is worth its budget if success rises by this much, by a gain that is so many standard errors from 0.
LEAST_RISE, LEAST_ERRORS = 0.1, 2.0


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The outlook of a run of EGGROLL."""

    learns: bool
    """Whether it should learn."""
    eggroll: float
    """Rise of success that it is forecast."""
    reasons: tuple[str, ...]
    """The reasons, one line each."""
    command: str
    """A command line to paste: of EGGROLL if it should learn, else of scored ES."""
    narrow: str
    """The same on those matrices alone that hold most of the gradient's energy; empty where no gradient was had."""


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
    exclude: Sequence[str],
    words: tuple[str, ...],
) -> Forecast:
    """Return the forecast of a run of so many generations.

    success: at the start, sampled. scored: episodes with an advantage. members: of the sweep. exclude: patterns of what holds
    little of the gradient's energy. words: of model and task.
    """
    swept = max(sigmas, key=lambda figures: figures.gain, default=None)
    sure = swept is not None and swept.gain >= LEAST_ERRORS * swept.error
    by_returns = 0.0 if swept is None else rise(swept.gain, success=success, generations=generations)
    reasons = [f"sampled success at the start is {success:.2f}; {scored} episodes of a generation carry a signal"]
    if swept is not None:
        told = "" if sure else ", which may be chance"
        reasons.append(
            f"members' returns at sigma {swept.sigma:g} gain {swept.gain:.4f} ± {swept.error:.4f} a generation{told}: "
            f"{generations} generations of eggroll raise success by {by_returns:.2f}"
        )
    if scored < LEAST_EPISODES:
        reasons.append(
            "too few episodes differ from their group: warm the model up, sample more, or make the task easier"
        )
    elif estimates:
        reasons.append(
            f"one step of scored_es gains {estimates[0].gain:.3f} at a KL of {KL:g} on the episodes it is estimated from; "
            "no run of it is forecast"
        )
    learns = swept is not None and sure and by_returns >= LEAST_RISE
    options = ["algorithm=scored_es"]
    if swept is not None and learns:
        options = ["algorithm=eggroll", f"algorithm.sigma={swept.sigma:g}", f"algorithm.population={members}"]
    narrow = [shlex.quote(f"algorithm.exclude={json.dumps(list(exclude))}")] if exclude else []
    return Forecast(
        learns=learns,
        eggroll=by_returns,
        reasons=tuple(reasons),
        command=" ".join(["evotext train", *options, *words]),
        narrow=" ".join(["evotext train", *options, *narrow, *words]) if narrow else "",
    )

"""Notes for the user of a policy gradient, once a run."""

from .unfinished import UnfinishedValued

# A clip narrower than this many times the rounding in the ratio acts on the rounding.
LEAST_CLIP = 3.0
# A larger share of unfinished episodes is reported.
MANY_UNFINISHED = 0.1


class Once:
    """Lets each kind of note through once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, **notes: tuple[str, ...]) -> tuple[str, ...]:
        """Return the notes whose kind, the keyword, had none before."""
        new = {kind: lines for kind, lines in notes.items() if lines and kind not in self._said}
        self._said |= new.keys()
        return tuple(line for lines in new.values() for line in lines)


def gap_notes(metrics: dict[str, float], tolerance: float) -> tuple[str, ...]:
    """Warn if the sampler's and the trainer's log-probabilities differ by more than this on average, in nats."""
    gap = metrics.get("sampling/logp_difference", 0.0)
    if gap <= tolerance:
        return ()
    return (
        f"warning: the sampler's log-probabilities are {gap:.3g} nats a token from the trainer's (tolerance {tolerance:g}): "
        "likely weights in a narrow type (try model.dtype=float32 or old_logprobs=trainer), or layers that compute "
        "otherwise with a cache or with padding",
    )


def clip_notes(metrics: dict[str, float], clip: float) -> tuple[str, ...]:
    """Warn if clipping acts on the sampler's rounding. clip: the narrower side of the range."""
    gap = metrics.get("sampling/ratio_gap", 0.0)
    if clip >= LEAST_CLIP * gap:
        return ()
    return (
        f"warning: the ratio is clipped {clip:g} from 1, and sampler and trainer alone move it by {gap:.2g}: clipping acts on "
        "rounding; set old_logprobs=trainer or model.dtype=float32, or clip wider (clip_low, clip_high)",
    )


def unfinished_notes(metrics: dict[str, float], unfinished: UnfinishedValued) -> tuple[str, ...]:
    """Return a line if many episodes were cut off by a limit, and say how they count."""
    share = metrics["completions/unfinished_ratio"]
    if share <= MANY_UNFINISHED:
        return ()
    fate = {
        "counted": "count with what they had earned",
        "masked": "are left out of learning",
        "bootstrapped": "count with what they had earned and what the critic expects to follow",
    }[unfinished]
    return (
        f"note: {share:.0%} of the episodes were cut off by a limit before their task ended them; they {fate} "
        f"(unfinished={unfinished}); where they could have gone on, raise env.max_turns or shorten the turns",
    )

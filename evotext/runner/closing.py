"""Notes at the end of a run besides its score: that nothing was learned and why, faults, the budget."""

from collections.abc import Iterator

from evotext.runner.budget import Budget
from evotext.runner.faults import listed
from evotext.runner.run_state import RunState
from evotext.types import Outcome

NO_SIGNAL = (
    "nothing was learned: in every generation all answers got the same reward; make the task easier, explore more "
    "(a higher temperature, with ES a larger sigma), or look at what is answered in episodes.jsonl"
)
# Overshooting a budget, or leaving some of it, by more than this share makes a comparison unfair.
OVERSHOT = UNSPENT = 0.1
# After this many generations it is known how many a budget holds.
TELLING = 3


def few_generations(at: RunState, budget: Budget, *, wanted: int, over: bool) -> str:
    """Return what to say once if the budget holds fewer generations than are wanted; else nothing."""
    told = at.generation == TELLING or (over and at.generation < TELLING)
    held = budget.generations(at.cost, at.generation)
    if not told or held >= wanted:
        return ""
    many = f"about {held:.0f} generation{'s' * (held >= 1.5)}" if held >= 1 else "less than one generation"
    return (
        f"warning: the budget holds {many}, and this algorithm wants {wanted} or more; raise "
        "budget.limit or lower population or prompts"
    )


def closing_lines(at: RunState, budget: Budget) -> Iterator[str]:
    """Yield one line for each thing to know."""
    if at.generation and not at.outcomes[Outcome.CHANGED.value]:
        yield _why_nothing_changed(at)
    elif at.all_faults:
        yield f"warning: faults of the environment ended {_shares(at)}; scores take them for failures"
    spent, unit = budget.spent(at.cost), budget.unit.replace("_", " ")
    amounts = f"{_amount(spent)} of {_amount(budget.limit)} {unit}"
    if at.generation == 1 and spent > budget.limit:
        yield (
            f"warning: one generation takes more than the budget: {amounts}; "
            "raise budget.limit or make generations smaller"
        )
    elif spent > (1 + OVERSHOT) * budget.limit:
        yield (
            f"warning: the budget was overshot by {spent / budget.limit - 1:.0%}, {amounts}, for the last generation took more "
            "than those before it; raise budget.limit or make generations smaller"
        )
    elif budget.limit <= at.full and spent < (1 - UNSPENT) * budget.limit:
        yield (
            f"warning: {1 - spent / budget.limit:.0%} of the budget is left, {amounts} spent, for one more generation would "
            "have taken more; make generations smaller"
        )


def _amount(value: float) -> str:
    """Write counts whole, seconds and operations to four digits."""
    return f"{value:,.0f}" if value.is_integer() and value < 1e9 else f"{value:,.4g}"


def _why_nothing_changed(at: RunState) -> str:
    dropped, held = at.outcomes[Outcome.NOT_FINITE.value], at.outcomes[Outcome.HELD.value]
    if dropped:
        return (
            f"nothing was learned: in {dropped:,} of {at.generation:,} generations every step was dropped, for its gradient or "
            "the weights after it were not finite; take smaller steps (optimizer.lr) or model.dtype=float32"
        )
    if at.faults:
        return f"nothing was learned: faults of the environment ended {_shares(at)}; mend the environment first"
    if held:
        return (
            "nothing was learned: the budget ended before enough groups with a signal were gathered for a step; "
            "raise budget.limit or lower prompts"
        )
    return NO_SIGNAL


def _shares(at: RunState) -> str:
    parts = [
        f"{counts.total():,} of {episodes:,} {what} episodes"
        for counts, episodes, what in (
            (at.faults, at.cost.episodes, "training"),
            (at.evaluation_faults, at.evaluation_cost.episodes, "measured"),
        )
        if counts
    ]
    return f"{' and '.join(parts)} ({listed(at.all_faults)})"


def outcome(at: RunState, instances: str) -> str:
    """Return success (or return) before and after, and the cost, in words. instances: what was measured on."""
    if at.first is None or at.last is None or at.best is None:
        return "stopped before the first measurement"
    (name, before), (_, after) = at.first.score, at.last.score
    best = f"(saved: {at.best.score[1]:.3f} of generation {at.best_generation}) " if at.saved_another else ""
    return (
        f"{instances} {name} {before:.3f} -> {after:.3f} {best}"
        f"in {at.cost.episodes:,} episodes, {at.cost.generated_tokens:,} generated tokens, {at.cost.seconds:.1f} s"
    )

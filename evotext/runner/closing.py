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
# A generation is never cut short; more than this share of the budget too much makes a comparison unfair.
OVERSHOT = 0.1


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
            f"warning: the budget was overshot by {spent / budget.limit - 1:.0%}, {amounts}, for no generation is cut "
            "short; raise budget.limit or make generations smaller"
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

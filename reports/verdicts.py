"""The verdict that the figures support, in words.

A claim needs three runs a side, for intervals; intervals that do not overlap; and a permutation test that remains significant
after correction for the number of pairs on the whole page, which takes more runs (`fewest_for_a_claim`). Everything else is
called unclear.
"""

import math
from collections.abc import Sequence

from .across import Overall, Sweep
from .comparison import Comparison
from .fairness import distinct
from .formats import listed, score
from .statistics import FEWEST_RUNS, Estimate, aggregate_name
from .tasks import SIGNIFICANCE, Contestant, Duel, Task, fewest_for_a_claim, kind_of_instances

MOST_NAMES = 4
"""More tasks than this are counted rather than named in the answer."""


def ranked(task: Task) -> list[Contestant]:
    """Return contestants with a final score, best first."""
    return sorted((c for c in task.contestants if c.after), key=lambda c: -c.after.value if c.after else 0.0)


def verdict(task: Task) -> str:
    """Return one task's verdict in a sentence."""
    return _sentence(_finding(task), task)


def _finding(task: Task) -> str:
    """Return the verdict without capital and full stop."""
    best = ranked(task)
    if not best:
        return "no run has completed, so there is nothing to compare yet"
    if len(best) == 1:
        return _alone(task, best[0])
    figures = listed([f"{c.name} {_score(c.after)}" for c in best])
    if task.unfair:
        return f"no claim is made, since the comparison is not fair ({figures})"
    few = [c for c in best if c.seeds < FEWEST_RUNS]
    if few:
        return f"there are too few seeds for a claim ({figures})"
    return f"{_lead(best[0].name, task.duels)} ({figures})"


def _lead(leader: str, all_duels: Sequence[Duel]) -> str:
    """Return what the best contestant's duels support."""
    duels = [duel for duel in all_duels if duel.first == leader]
    beaten = [duel.second for duel in duels if duel.clear]
    apart = [duel for duel in duels if duel.apart and not duel.clear]
    level = [duel.second for duel in duels if not duel.apart]
    parts = []
    if beaten:
        parts.append(f"{leader} is clearly ahead of {listed(beaten)}")
    if apart:
        parts.append(
            f"{leader} scored above {listed([duel.second for duel in apart])}, "
            f"but with so few seeds that is no evidence yet ({_odds(apart)})"
        )
    if level:
        parts.append(f"there is no clear difference between {listed([leader, *level])}")
    return "; ".join(parts)


def answer(comparison: Comparison) -> tuple[str, str]:
    """Return the whole report in two sentences: the result, and the data behind it."""
    tasks = [task for task in comparison.tasks if ranked(task)]
    if not tasks:
        return "No run has completed: there is nothing to compare yet.", "Run it again when runs have ended."
    if len(tasks) == 1:
        first = f"On {tasks[0].name}, {_finding(tasks[0])}."
    else:
        first = _over_tasks(comparison, tasks)
    return first, _basis(comparison, tasks)


def setting(task: Task) -> str:
    """Return budget and evaluation of the counted runs, in words; empty where the runs do not say."""
    runs = [run for contestant in task.contestants for run in contestant.counted]
    budgets = distinct(
        f"{run.budget_limit:,.10g} {run.budget_unit.replace('_', ' ').removesuffix('s' if run.budget_limit == 1 else '')}"
        for run in runs
        if run.budget_limit > 0
    )
    episodes = distinct(f"{run.eval_episodes:,.0f}" for run in runs if run.eval_episodes > 0)
    decodings = distinct(run.decoding for run in runs)
    parts = [f"Budget of a run: {' or '.join(budgets)}"] if budgets else []
    parts += [f"measured on {' or '.join(episodes)} {task.instances} episodes"] if episodes else []
    parts += [f"decoding: {' or '.join(decodings)}"] if decodings else []
    return "; ".join(parts) + "." if parts else ""


def clear_winner(task: Task) -> str | None:
    """Return the contestant that is clearly ahead of all others, in a fair comparison."""
    best = ranked(task)
    if len(best) < 2 or task.unfair or len(task.duels) < len(best) * (len(best) - 1) // 2:
        return None
    return best[0].name if all(duel.clear for duel in task.duels if duel.first == best[0].name) else None


def explained(duel: Duel) -> str:
    """Explain why a duel is, or is not, a claim."""
    if duel.clear:
        return "clear"
    return "intervals apart, too few seeds to be sure" if duel.apart else "no clear difference"


def _alone(task: Task, only: Contestant) -> str:
    before = f" from {score(only.before.value)}" if only.before else ""
    runs = f"{len(only.counted)} {'run' if len(only.counted) == 1 else 'runs'}"
    others = "it is the only one here" if len(task.contestants) == 1 else "no other has a completed run"
    return f"{only.name} went{before} to {_score(only.after)} over {runs}; {others}, so there is nothing to compare it with"


def overall_verdict(overall: Overall) -> str:
    """Return the verdict on several tasks together, without capital and full stop."""
    figures = listed([f"{profile.name} {_score(profile.score)}" for profile in overall.profiles])
    return f"over {len(overall.tasks)} tasks together, {_lead(overall.profiles[0].name, overall.duels)} ({figures})"


def sweep_verdict(sweep: Sweep) -> str:
    """Return what changes with the option, without capital and full stop."""
    low, high = sweep.values[0], sweep.values[-1]
    changes = listed(
        [
            f"{name} goes from {score(line.score[0])} to {score(line.score[-1])}"
            for name, line in sweep.lines.items()
            if len(line.cost) > 1 and (line.cost[0], line.cost[-1]) == (low, high)
        ]
    )
    won: dict[str, list[str]] = {}
    for value, task in zip(sweep.values, sweep.tasks, strict=True):
        winner = clear_winner(task)
        if winner:
            won.setdefault(winner, []).append(f"{value:g}")
    ahead = [f"{name} is clearly ahead of all others at {listed(values)}" for name, values in won.items()]
    ahead = ahead or ["no algorithm is clearly ahead of all others at any value"]
    course = (
        f"as {sweep.option} of {sweep.name} rises from {low:g} to {high:g}, {changes or 'no algorithm has every value'}"
    )
    return f"{course} ({'; '.join(ahead)})" if len(sweep.lines) > 1 else course


def _over_tasks(comparison: Comparison, tasks: Sequence[Task]) -> str:
    swept = {task.name for sweep in comparison.sweeps for task in sweep.tasks}
    parts = [overall_verdict(comparison.overall)] if comparison.overall else []
    parts += _task_by_task([task for task in tasks if task.name not in swept])
    parts += [sweep_verdict(sweep) for sweep in comparison.sweeps if sweep.lines]
    sentence = "; ".join(parts)
    named = any(sentence.startswith(contestant.name) for task in tasks for contestant in task.contestants)
    return (sentence if named else sentence[0].upper() + sentence[1:]) + "."


def _task_by_task(tasks: Sequence[Task]) -> list[str]:
    won: dict[str, list[str]] = {}
    level, unfair, few, alone = [], [], [], []
    for task in tasks:
        winner = clear_winner(task)
        if winner:
            won.setdefault(winner, []).append(task.name)
        elif task.unfair:
            unfair.append(task.name)
        elif len(ranked(task)) < 2:
            alone.append(task.name)
        elif any(c.seeds < FEWEST_RUNS for c in ranked(task)):
            few.append(task.name)
        else:
            level.append(task.name)

    def places(names: list[str]) -> str:
        if len(names) <= MOST_NAMES:
            return listed(names)
        return f"all {len(names)} tasks" if len(names) == len(tasks) else f"{len(names)} of {len(tasks)} tasks"

    parts = [f"{name} is clearly ahead on {places(names)}" for name, names in won.items()]
    parts += [f"on {places(level)} no algorithm is clearly ahead of all others"] if level else []
    parts += [f"on {places(few)} there are too few seeds for a claim"] if few else []
    parts += [f"on {places(alone)} there is one algorithm and nothing to compare it with"] if alone else []
    parts += [f"on {places(unfair)} the comparison is not fair"] if unfair else []
    return parts


def _basis(comparison: Comparison, tasks: Sequence[Task]) -> str:
    counts = sorted({c.seeds for task in tasks for c in ranked(task)})
    searches = max(len(c.searches) for task in tasks for c in ranked(task))
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    instances = kind_of_instances([run for task in tasks for c in ranked(task) for run in c.counted])
    what = f"{comparison.metric} on {instances} instances"
    plural = "seed" if counts[-1] == 1 else "seeds"
    basis = f"Figures are the {aggregate_name(counts[0])} {what} over {seeds} {plural} for each algorithm and task"
    if searches > 1:
        basis += (
            f", of the settings that {searches} searches of hyperparameters have chosen (intervals hold those of each, and a "
            "lead holds whichever of them is taken)"
        )
    if len(counts) > 1 and counts[0] < 4 <= counts[-1]:
        basis = basis.replace(" mean ", " mean (interquartile from four seeds on) ", 1)
    pairs = sum(math.comb(len(ranked(task)), 2) for task in tasks)
    pairs += len(comparison.overall.duels) if comparison.overall else 0
    wanted = fewest_for_a_claim(pairs)
    many = "1 pair" if pairs == 1 else f"{pairs} pairs"
    among = f"on a page of {many} a claim on one task takes at least {wanted} seeds of each"
    if counts[0] < FEWEST_RUNS:
        return f"{basis}; fewer than {FEWEST_RUNS} are too few for an interval" + (f", and {among}." if pairs else ".")
    return (
        f"{basis}, and a lead counts as clear where 95% intervals do not overlap and equal algorithms would differ "
        f"as much anywhere on fewer than 1 of {round(1 / SIGNIFICANCE)} such pages"
        f"{f'; {among}' if pairs and counts[0] < wanted else ''}."
    )


def _sentence(finding: str, task: Task) -> str:
    """Capitalise a finding; one that starts with a name keeps the name as it is."""
    named = any(finding.startswith(contestant.name) for contestant in task.contestants)
    return (finding if named else finding[0].upper() + finding[1:]) + "."


def _score(estimate: Estimate | None) -> str:
    assert estimate
    low_high = estimate.interval
    return score(estimate.value) + (f" [{low_high[0]:.2f}, {low_high[1]:.2f}]" if low_high else "")


def _odds(duels: Sequence[Duel]) -> str:
    worst = max(duel.p_value for duel in duels)
    if worst >= 1:
        return "equal algorithms would often differ as much"
    return f"equal algorithms would differ as much somewhere on up to {worst:.0%} of such pages"

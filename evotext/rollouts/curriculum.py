"""A curriculum by measured difficulty: training instances are drawn from levels of a task, by how much there is to learn.

A level is drawn with probability proportional to p (1 - p), the variance of its success, p being the success measured in the
run's own training episodes: a level that is solved, or hopeless, gives no signal. Rutherford et al. 2024 ("No Regrets",
arXiv 2408.15099) call it learnability; Foster and Foerster 2025 (arXiv 2502.12272) use it for language models trained by RL.

    p = (s + 1) / (n + 2)     s successes among n episodes, both multiplied by `decay` after each generation

Deviations: whole levels and not single instances are weighed, so that no episode is spent on measuring alone; the
estimate forgets, and goes back to 1/2 where a level is not drawn, so that one that was hopeless is tried again. For
evolution strategies the episodes are those of perturbed members.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from evotext.keys.philox import Purpose
from evotext.models.language_model import LanguageModel
from evotext.protocols import Algorithm, FollowsBudget, Learner
from evotext.rollouts.mixture import drawn
from evotext.rollouts.task import Task, TextTask
from evotext.types import RolloutPlan, Trajectories, UpdateReport
from evotext.validation import checked

Decay = Annotated[float, Field(gt=0, lt=1)]


class Levels:
    """The task at several levels of difficulty. It is a task, of which training has instances of every level.

    key, values, decay: conf/curriculum/levels.yaml. task: what is measured. at: makes the task with a value of the key.
    Raises ValueError unless every level knows success, and for fewer than two.
    """

    @checked
    def __init__(
        self,
        *,
        key: str,
        values: list[bool | int | float | str],
        decay: Decay,
        task: Any,
        at: Callable[[str, Any], Any],
    ) -> None:
        if len(set(values)) < max(2, len(values)):
            raise ValueError(f"values: expected two or more, all different, got {values}")
        levels = [at(key, value) for value in values]
        if not all(level.knows_success for level in levels):
            raise ValueError(f"key: expected one of a task that knows success, got {task.name}; set env.success_return")
        self.measured: Task = task
        self.levels: list[Task] = levels
        self.values, self.decay = [str(value) for value in values], decay
        self.name, self.success_return, self.knows_success = task.name, task.success_return, True
        self.splits, self.shares = task.splits, task.shares
        self.parts: Sequence[TextTask] = [part for each in (task, *levels) for part in each.parts]
        self.max_new_tokens = max(part.max_new_tokens for part in self.parts)
        self.max_turns = max(part.max_turns for part in self.parts)
        self.successes, self.episodes = [0.0] * len(levels), [0.0] * len(levels)
        """Successes and episodes of each level; older ones count for less."""

    @property
    def estimates(self) -> list[float]:
        """The success of each level."""
        return [(s + 1) / (n + 2) for s, n in zip(self.successes, self.episodes, strict=True)]

    @property
    def weights(self) -> list[float]:
        """The probability that each level is drawn."""
        variances = [p * (1 - p) for p in self.estimates]
        return [variance / sum(variances) for variance in variances]

    def levels_of(self, instances: Sequence[int]) -> list[int]:
        """Return the level that each instance (environment seed) has now."""
        return drawn(instances, self.weights, Purpose.LEVELS)

    def of(self, instances: Sequence[int]) -> list[TextTask]:
        """Return the task of each instance at its level."""
        levels = self.levels_of(instances)
        by_level = [level.of(instances) for level in self.levels]
        return [by_level[level][i] for i, level in enumerate(levels)]

    def learn(self, batch: Trajectories) -> dict[str, float]:
        """Take in what a generation's episodes say of their levels; return success and share of each level for the log."""
        assert batch.success_B is not None, "every level knows success"
        of, shares = self.levels_of(batch.plan.instances), self.weights
        for level in range(len(self.levels)):
            own = [row for row, drawn_level in enumerate(of) if drawn_level == level and not bool(batch.faulty_B[row])]
            self.successes[level] = self.decay * self.successes[level] + float(batch.success_B[own].sum())
            self.episodes[level] = self.decay * self.episodes[level] + len(own)
        found = {f"curriculum/share/{value}": share for value, share in zip(self.values, shares, strict=True)}
        estimates = zip(self.values, self.estimates, strict=True)
        return found | {f"curriculum/success/{value}": estimate for value, estimate in estimates}


def no_curriculum(*, task: Task, at: Callable[[str, Any], Task]) -> Task:
    """Return the task itself."""
    return task


class WithCurriculum:
    """An algorithm whose learner tells the levels what it is told, and keeps what they have learned in its state."""

    def __init__(self, algorithm: Algorithm, levels: Levels) -> None:
        self._algorithm, self._levels = algorithm, levels

    def start(self, model: LanguageModel, seed: int) -> "CurriculumLearner":
        """Return the algorithm's learner with the levels beside it."""
        return CurriculumLearner(self._algorithm.start(model, seed), self._levels)


class CurriculumLearner:
    """A learner as it is, with levels."""

    def __init__(self, learner: Learner, levels: Levels) -> None:
        self._learner, self._levels = learner, levels

    def follow(self, spent: float) -> None:
        """Tell the learner, if it has schedules, which share of the budget is spent."""
        if isinstance(self._learner, FollowsBudget):
            self._learner.follow(spent)

    def ask(self, generation: int) -> RolloutPlan:
        """Return the learner's plan."""
        return self._learner.ask(generation)

    def tell(self, batch: Trajectories) -> UpdateReport:
        """Tell the learner, then the levels; an empty batch says nothing of them."""
        report = self._learner.tell(batch)
        figures = self._levels.learn(batch) if batch.plan.instances else {}
        return replace(report, metrics=report.metrics | figures)

    def state_dict(self) -> dict[str, object]:
        """Return the learner's state and what is known of the levels."""
        levels = {"successes": list(self._levels.successes), "episodes": list(self._levels.episodes)}
        return {"learner": self._learner.state_dict(), "levels": levels}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self._learner.load_state_dict(state["learner"])
        self._levels.successes, self._levels.episodes = map(
            list, (state["levels"][k] for k in ("successes", "episodes"))
        )

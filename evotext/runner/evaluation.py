"""Success and return on instances that are not trained on: the same for every algorithm and every seed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BeforeValidator

from evotext.distributed.exchange import first_of_each_kind
from evotext.keys.instances import held_out_instances, validation_instances
from evotext.rollouts.collector import Collector
from evotext.rollouts.mixture import in_proportion, names_of
from evotext.rollouts.task import Task, TextTask
from evotext.run_folder.schema import INSTANCES, EvaluationSplit
from evotext.runner.faults import fault_counts
from evotext.runner.pass_at_k import pass_at_k
from evotext.types import Cost, Fault, RolloutPlan, Sampling, Trajectories, Transcript
from evotext.validation import MinP, NonNegativeFloat, NonNegativeInt, PositiveInt, TopP, checked

SAMPLED_TEMPERATURE = 1.0
"""The temperature of the answers that pass@k counts: the distribution that RL samples from."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Scores of some episodes."""

    mean_return: float
    """Their mean return."""
    success: float | None
    """Share of them that the task counts as success; None for a task that knows no success."""


def score_of(batch: Trajectories, rows: Sequence[int] | slice = slice(None)) -> Score:
    """Return the scores of these rows of a batch, or of all."""
    return Score(
        mean_return=float(batch.return_B[rows].mean()),
        success=None if batch.success_B is None else float(batch.success_B[rows].double().mean()),
    )


def scores_by_task(batch: Trajectories, task: Task) -> dict[str, Score]:
    """Return the scores of each task of a mixture that the batch has rows of; empty for a single task."""
    names = names_of(task, batch.plan.instances)
    rows = {name: [row for row, own in enumerate(names) if own == name] for name in task.shares}
    return {name: score_of(batch, own) for name, own in rows.items() if own}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One measurement of a model."""

    episodes: int
    """Held-out episodes."""
    mean_return: float
    """Their mean return."""
    success: float | None
    """Share of them that the task counts as success; None for a task that knows no success."""
    mean_tokens: float
    """Tokens that the policy wrote in an episode, on average."""
    cost: Cost
    """The cost of the measurement, sampled answers included; it is not charged to the budget."""
    transcripts: tuple[Transcript, ...] = ()
    """A few of the episodes as text; none once the measurement has been read back from a checkpoint."""
    pass_at: Annotated[Mapping[int, float], BeforeValidator(dict)] = field(default_factory=dict)
    """pass@k of sampled answers by k; empty unless they were asked for."""
    sampled_return: float | None = None
    """Mean return of the sampled answers."""
    reward_parts: Mapping[str, float] = field(default_factory=dict)
    """Mean of each named part of the return; empty if they have no names."""
    faults: Counter[str] = field(default_factory=Counter)
    """Episodes that a fault of the environment ended, by kind; of all, sampled ones included."""
    fault_examples: tuple[Fault, ...] = ()
    """One of each kind; none once the measurement has been read back from a checkpoint."""
    by_task: Mapping[str, Score] = field(default_factory=dict)
    """Scores of each task of a mixture, and of further tasks where these were measured."""

    @property
    def fault_share(self) -> float:
        """Share of all episodes that a fault of the environment ended."""
        return self.faults.total() / self.cost.episodes

    @property
    def score(self) -> tuple[str, float]:
        """The score that the model is judged by, with its name: success, or the mean return where the task knows none."""
        return ("return", self.mean_return) if self.success is None else ("success", self.success)


class Evaluator:
    """Measures a model on the held-out instances of a task.

    episodes: how many instances, one episode each. points: measurements over a run besides the one before it.
    temperature, top_p, min_p: of decoding; 0 is greedy. samples: further answers to each instance at temperature 1, for pass@k.
    split: `test` takes the held-out instances, which results are reported on; `validation` takes others, which
    hyperparameters are chosen by.
    also: further tasks to measure, by the names that figures have; nothing is chosen by them. also_at: at both ends of a
    run, or at every measurement.
    """

    @checked
    def __init__(
        self,
        *,
        episodes: PositiveInt,
        points: PositiveInt,
        temperature: NonNegativeFloat,
        samples: NonNegativeInt,
        split: EvaluationSplit = "test",
        top_p: TopP = 1.0,
        min_p: MinP = 0.0,
        also: Mapping[str, TextTask] | None = None,
        also_at: Literal["ends", "points"] = "ends",
    ) -> None:
        self.episodes, self.points, self.samples = episodes, points, samples
        self.also, self._also_at = also or {}, also_at
        self.sampling = Sampling(temperature=temperature, top_p=top_p, min_p=min_p)
        self.split = split

    @property
    def instances(self) -> str:
        """The kind of instances that are measured, in a word."""
        return INSTANCES[self.split]

    @property
    def decoding(self) -> str:
        """The decoding in words, for records."""
        sampling = self.sampling
        if sampling.temperature == 0.0:
            return "greedy"
        nucleus = f", top-p {sampling.top_p:g}" if sampling.top_p < 1.0 else ""
        return f"temperature {sampling.temperature:g}{nucleus}" + f", min-p {sampling.min_p:g}" * (sampling.min_p > 0.0)

    def measure(self, collector: Collector, *, sampled: bool) -> Evaluation:
        """Run the held-out episodes with the model's present weights.

        sampled: as at both ends of a run, also `samples` answers for pass@k, and the further tasks.
        """
        task = collector.task.measured
        batch = collector.collect(self._plan(task, 1, self.sampling), task)
        cost, pass_at, sampled_return = batch.cost, {}, None
        faults, examples, by_task = fault_counts(batch), batch.faults, scores_by_task(batch, task)
        for name, other in self.also.items() if sampled or self._also_at == "points" else ():
            further = collector.collect(self._plan(other, 1, self.sampling), other)
            by_task[name], cost = score_of(further), cost + further.cost
            faults, examples = faults + fault_counts(further), examples + further.faults
        if sampled and self.samples:
            sampling = Sampling(temperature=SAMPLED_TEMPERATURE)
            answers = collector.collect(self._plan(task, self.samples, sampling), task)
            cost, sampled_return = cost + answers.cost, float(answers.return_B.mean())
            faults, examples = faults + fault_counts(answers), examples + answers.faults
            if answers.success_B is not None:
                successes = answers.success_B.view(self.episodes, self.samples).sum(1).tolist()
                pass_at = pass_at_k(successes, self.samples)
        score = score_of(batch)
        return Evaluation(
            episodes=self.episodes,
            mean_return=score.mean_return,
            success=score.success,
            mean_tokens=batch.cost.generated_tokens / self.episodes,
            cost=cost,
            transcripts=batch.transcripts,
            pass_at=pass_at,
            sampled_return=sampled_return,
            reward_parts={name: float(part_B.mean()) for name, part_B in batch.reward_parts.items()},
            faults=faults,
            fault_examples=first_of_each_kind(examples),
            by_task=by_task,
        )

    def _plan(self, task: Task, answers: int, sampling: Sampling) -> RolloutPlan:
        """Return a plan of this many answers to each instance, those of one instance next to each other."""
        first = held_out_instances if self.split == "test" else validation_instances
        instances = in_proportion(task, first, self.episodes)
        return RolloutPlan(
            seed=0,
            generation=0,
            instances=tuple(instance for instance in instances for _ in range(answers)),
            groups=tuple(group for group in range(self.episodes) for _ in range(answers)),
            sampling=sampling,
            split=self.split if self.split in task.splits else "train",
            tokens=False,
        )

"""One run: ask, collect, tell, until the budget is spent; or the rest of one, from its last checkpoint."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from evotext.distributed import collectives
from evotext.distributed.exchange import joint_cost
from evotext.distributed.sharding import own_part
from evotext.models.language_model import LanguageModel
from evotext.protocols import Algorithm, FollowsBudget, Tracker
from evotext.rollouts.collector import Collector
from evotext.rollouts.environment_calls import BrokenEnvironment
from evotext.run_folder import names as folder_names
from evotext.run_folder.cost import on_axes
from evotext.run_folder.schema import Keep, Phase, Status
from evotext.run_folder.writer import write_summary
from evotext.runner.budget import Budget
from evotext.runner.callbacks import Callbacks
from evotext.runner.checkpointer import Checkpointer
from evotext.runner.checkpoints import Checkpointing
from evotext.runner.closing import closing_lines, few_generations, outcome
from evotext.runner.divergence import EPISODES, StartingPolicy
from evotext.runner.episodes_as_text import readable, training_sample
from evotext.runner.evaluation import Evaluator
from evotext.runner.faults import fault_counts, first_seen, listed
from evotext.runner.memory import forget_peak_memory
from evotext.runner.metrics import evaluation_metrics, generation_metrics
from evotext.runner.progress import RunProgress
from evotext.runner.pruner import NoPruner, Pruner
from evotext.runner.run_state import RunState
from evotext.runner.stop import STOPPED_BY_SIGNALS, stop_on_signals
from evotext.runner.stopper import NoStopper, Stopper
from evotext.runner.summary import summarise
from evotext.types import Fault, Outcome, RolloutPlan

# This many generations with nothing but faults of the environment end a run.
MOST_BROKEN = 2


class Run:
    """Tunes a model with an algorithm and records everything in a folder.

    The runner knows nothing of the algorithm's family: both ES and RL are asked for a plan and told the outcome.
    Raises what the algorithm's `start` raises for a model that it cannot tune.
    names: of `algorithm`, `env`, `model` in the records. checkpointing: when checkpoints are written. Process 0 alone writes.
    phase: `tuning` for a trial that chooses hyperparameters. pruner: ends a run of a sweep that falls behind.
    stopper: ends one that no longer improves. keep: which weights become `model/`, those of the best measurement or the last.
    sample_every: generations between two records of a few training episodes; 0: never.
    callbacks: of the caller's, who may end the run. progress: whether to say anything while it goes on.
    """

    def __init__(
        self,
        *,
        algorithm: Algorithm,
        model: LanguageModel,
        collector: Collector,
        budget: Budget,
        evaluator: Evaluator,
        trackers: Sequence[Tracker],
        seed: int,
        names: dict[str, str],
        folder: Path,
        checkpointing: Checkpointing,
        phase: Phase = "reporting",
        pruner: Pruner = NoPruner(),  # noqa: B008 (it has no state)
        stopper: Stopper = NoStopper(),  # noqa: B008 (nor has it)
        keep: Keep = "last",
        sample_every: int = 0,
        callbacks: Callbacks | None = None,
        progress: bool = True,
    ) -> None:
        self.model, self._collector = model, collector
        self._budget, self._evaluator = budget, evaluator
        self._seed, self._names, self._folder = seed, names, folder
        self._phase, self._pruner, self._stopper, self._sample_every = phase, pruner, stopper, sample_every
        self._callbacks, self._progress = callbacks or Callbacks(), progress and collectives.rank() == 0
        self._trackers = [*trackers, self._callbacks] if collectives.rank() == 0 else []
        forget_peak_memory(model.device)  # of a process's earlier runs
        # Here and not in `train`: what it cannot work with is refused before anything runs.
        self._learner = algorithm.start(model, seed)
        self._at = RunState()
        self._start: StartingPolicy | None = None
        identity = names | {"seed": str(seed)}
        self._checkpointer = Checkpointer(
            checkpointing, folder=folder, names=identity, learner=self._learner, collector=collector, keep=keep
        )

    def resume(self) -> None:
        """Resume the folder's run from its last checkpoint, or from the start if it has none.

        Raise ValueError if it has some and none of them can be used.
        """
        self._start = self._starting_policy()  # before the weights are put back
        self._at = self._checkpointer.restore()
        self._at.resumes += 1

    def train(self) -> dict[str, object]:
        """Run to the end of the budget and return the summary, which is also written to `summary.json`.

        A stop from outside ends the run as `interrupted`. An error ends it as `failed` and is raised again. In every
        case what was logged so far is on disk. The weights are saved unless an error or a second signal broke a generation off.
        """
        status: Status = "completed"
        reason: str | None = None
        measured = True
        title = f"{self._names['algorithm']} on {self._names['env']}, seed {self._seed}"
        try:
            with (
                RunProgress(title, instances=self._evaluator.instances, shown=self._progress) as progress,
                stop_on_signals(progress.say) as stop,
            ):
                self._start = self._start or self._starting_policy()
                if self._at.last is None:
                    self._at.evaluation_cost += self._start.cost
                    self._tell_faults(self._start.fault_examples, progress)
                    self._at.evaluation_faults += self._start.faults
                    self._evaluate_and_save(progress)
                while not self._over and not collectives.any_of(stop.made or self._callbacks.called_off):
                    if reason := self._stopper.enough(self._at.scores):
                        progress.say(reason)
                        if self._evaluator.samples:
                            self._evaluate(progress, sampled=True)
                        break
                    if isinstance(self._learner, FollowsBudget):
                        self._learner.follow(self._fraction)
                    plan = self._learner.ask(self._at.generation)
                    if not self._has_room(plan):
                        self._at.full = self._budget.limit
                        self._evaluate_and_save(progress)
                        break
                    measured = self._advance(plan, progress)
                    if measured and not self._over and (reason := self._behind()):
                        status = "pruned"
                        break
                    if reason := self._budget.out_of_reach(self._at.idle_in_a_row):
                        progress.say(reason)
                        self._evaluate_and_save(progress)
                        break
                if not self._over and reason is None:
                    status, reason = "interrupted", STOPPED_BY_SIGNALS[0]
                    if collectives.any_of(self._callbacks.called_off):
                        reason = "stopped by a callback"
                        if not measured:
                            self._evaluate(progress, sampled=True)
                    self._checkpointer.save(self._at)
                for line in closing_lines(self._at, self._budget):
                    progress.say(line)
            self._checkpointer.save_model(self._at)
        except KeyboardInterrupt:
            status, reason = "interrupted", STOPPED_BY_SIGNALS[1]
        except BaseException as error:
            with suppress(OSError):  # a full disk should not hide what went wrong
                self._record("failed", f"{type(error).__name__}: {error}")
            raise
        return self._record(status, reason)

    @property
    def outcome(self) -> str:
        """Success (or return) before and after, and the cost, in words."""
        return outcome(self._at, self._evaluator.instances)

    @property
    def _fraction(self) -> float:
        return self._budget.fraction(self._at.cost)

    @property
    def _over(self) -> bool:
        return self._fraction >= 1.0 or self._budget.limit <= self._at.full

    def _behind(self) -> str | None:
        """Say why the run should end early, on all processes alike."""
        reason = self._pruner.behind(self._folder) if collectives.rank() == 0 else ""
        return (reason or "pruned") if collectives.any_of(bool(reason)) else None

    def _has_room(self, plan: RolloutPlan) -> bool:
        """Return whether the budget has room for a part of the plan; the first one runs anyhow: its cost is unknown."""
        at = self._at
        return at.generation == 0 or plan.smallest_part <= self._budget.rows_left(at.cost, at.latest)

    def _evaluate_and_save(self, progress: RunProgress) -> None:
        """Measure in full, as at both ends of a run, and save a checkpoint."""
        self._evaluate(progress, sampled=True)
        self._checkpointer.save(self._at)

    def _advance(self, whole: RolloutPlan, progress: RunProgress) -> bool:
        """Run one generation, then measure and save where that is due; return whether it was measured."""
        at, before, sent = self._at, self._fraction, collectives.bytes_sent()
        plan = whole.shortened(self._budget.rows_left(at.cost, at.latest))
        batch = self._collector.collect(plan)
        for note in self._collector.take_notes():
            progress.say(note)
        self._tell_faults(batch.faults, progress)
        at.faults += fault_counts(batch)
        report = self._learner.tell(batch)
        for note in report.notes:
            progress.say(note)
        finite = self._weights_are_finite()
        if self.model.sharding is None:
            collectives.check_same(dict(self.model.network.named_parameters()), f"generation {at.generation + 1}")
        update = joint_cost(report.cost)
        at.cost = at.cost + batch.cost + update
        at.took(self._budget.taken(len(plan.instances), batch.cost, update, update_is_fixed=report.cost_is_fixed))
        at.generation += 1
        # A shortened generation is the last: the rest would make ever smaller ones, whose steps are as long as any.
        if plan is not whole or not self._has_room(plan):
            at.full = self._budget.limit
        if note := few_generations(at, self._budget, wanted=plan.generations_wanted, over=self._over):
            progress.say(note)
            at.notes.append(note)
        at.outcomes[report.outcome.value if finite else Outcome.NOT_FINITE.value] += 1
        at.idle_in_a_row = 0 if report.cost.updates else at.idle_in_a_row + 1
        at.dropped += not finite
        at.dropped_in_a_row = 0 if finite else at.dropped_in_a_row + 1
        figures = generation_metrics(batch, report, task=self._collector.task, faults=at.faults, dropped=at.dropped)
        if collectives.world_size() > 1:
            sent = collectives.bytes_sent() - sent
            figures |= {"processes/bytes": float(sent), "processes/waiting": self._collector.waiting}
        if plan is not whole:
            figures["shortened"] = len(plan.instances) / len(whole.instances)
        self._log("train", figures)
        if self._sample_every and (at.generation - 1) % self._sample_every == 0:
            for tracker in self._trackers:
                tracker.log_training_episodes(training_sample(batch, report.credit, generation=at.generation))
        if not finite:
            progress.say(f"generation {at.generation} dropped: weights that are not finite")
            self._checkpointer.go_back(at)
        if at.nothing_but_faults and (at.generation >= MOST_BROKEN or self._over):
            raise BrokenEnvironment(
                f"faults of the environment ended all {at.cost.episodes:,} training episodes ({listed(at.faults)}): "
                f"{batch.faults[0]}; tracebacks are in {self._folder / folder_names.FAULTS}"
            )
        progress.generation(self._fraction, float(batch.return_B.mean()), at.cost, at.fault_share)
        points = self._evaluator.points
        due = self._over or int(self._fraction * points) > int(before * points)
        if due:
            self._evaluate(progress, sampled=self._over)
        if due or self._checkpointer.due:
            self._checkpointer.save(at)
        return due

    def _weights_are_finite(self) -> bool:
        parts = [own_part(p.detach()) for p in self.model.network.parameters()]
        finite = bool(torch.stack([part.isfinite().all() for part in parts]).all())
        if self.model.sharding is not None:
            return not collectives.any_of(not finite)
        return self.model.parts.all_agree(finite)

    def _evaluate(self, progress: RunProgress, *, sampled: bool) -> None:
        """Measure the model. sampled: also sample answers for pass@k, which is done at a run's ends alone."""
        evaluation = self._evaluator.measure(self._collector, sampled=sampled)
        assert self._start is not None
        divergence, cost = self._start.divergence()
        self._tell_faults(evaluation.fault_examples, progress)
        self._at.measured(replace(evaluation, transcripts=(), fault_examples=()))
        self._at.evaluation_cost += cost
        self._log("eval", evaluation_metrics(evaluation, spent=self._fraction, divergence=divergence))
        for tracker in self._trackers:
            tracker.log_transcripts(self._at.generation, [readable(episode) for episode in evaluation.transcripts])
        progress.evaluation(self._fraction, evaluation, self._at.cost, self._at.fault_share)

    def _tell_faults(self, examples: Sequence[Fault], progress: RunProgress) -> None:
        """Report each kind of fault once in a run."""
        for line in first_seen(examples, self._at.all_faults, self._folder):
            progress.say(line)

    def _starting_policy(self) -> StartingPolicy:
        return StartingPolicy(self._collector, episodes=min(EPISODES, self._evaluator.episodes))

    def _log(self, kind: str, figures: dict[str, float]) -> None:
        at = self._at
        axes: dict[str, float | int | str] = {"kind": kind, "generation": at.generation, "updates": at.cost.updates}
        for tracker in self._trackers:
            tracker.log(axes | on_axes(at.cost) | figures)

    def _record(self, status: Status, reason: str | None) -> dict[str, object]:
        summary = summarise(
            names=self._names,
            seed=self._seed,
            phase=self._phase,
            status=status,
            reason=reason,
            budget=self._budget,
            evaluator=self._evaluator,
            state=self._at,
            device=self.model.device,
        )
        try:
            if collectives.rank() == 0:
                write_summary(self._folder, summary)
        finally:
            for tracker in self._trackers:
                tracker.close()
        return summary.model_dump(mode="json")

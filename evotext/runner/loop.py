"""One run: ask, collect, tell, until the budget is spent; or the rest of one, from its last checkpoint."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from evotext.distributed import collectives
from evotext.distributed.exchange import joint_cost
from evotext.models.language_model import LanguageModel
from evotext.protocols import Algorithm, Tracker
from evotext.rollouts.collector import Collector
from evotext.rollouts.environment_calls import BrokenEnvironment
from evotext.run_folder import names as folder_names
from evotext.run_folder.atomic import write_folder
from evotext.run_folder.cost import on_axes
from evotext.run_folder.schema import Phase, Status
from evotext.run_folder.writer import write_summary
from evotext.runner.budget import Budget
from evotext.runner.checkpointer import Checkpointer
from evotext.runner.checkpoints import Checkpointing
from evotext.runner.closing import closing_lines
from evotext.runner.divergence import EPISODES, StartingPolicy
from evotext.runner.evaluation import Evaluator
from evotext.runner.faults import fault_counts, first_seen, listed
from evotext.runner.memory import forget_peak_memory
from evotext.runner.metrics import evaluation_metrics, generation_metrics
from evotext.runner.progress import RunProgress
from evotext.runner.pruner import NoPruner, Pruner
from evotext.runner.readable import readable
from evotext.runner.run_state import RunState
from evotext.runner.stop import stop_on_signals
from evotext.runner.summary import summarise
from evotext.types import Fault, Outcome

# Dropped generations in a row that end a run: the next one would be dropped too.
MOST_DROPPED = 10
# Generations with nothing but faults of the environment that end a run.
MOST_BROKEN = 2


class Run:
    """Tunes a model with an algorithm and records everything in a folder.

    The runner knows nothing of the algorithm's family: both ES and RL are asked for a plan and told the outcome.
    Raises what the algorithm's `start` raises for a model that it cannot tune.
    names: what `algorithm`, `env` and `model` are called in the records.
    checkpointing: when checkpoints are written. Only the first of several processes writes anything.
    phase: `tuning` for a trial that chooses hyperparameters. pruner: ends a run of a sweep that falls behind.
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
    ) -> None:
        self._model, self._collector = model, collector
        self._budget, self._evaluator = budget, evaluator
        self._seed, self._names, self._folder = seed, names, folder
        self._phase, self._pruner = phase, pruner
        self._trackers = trackers if collectives.rank() == 0 else []
        forget_peak_memory(model.device)  # of a process's earlier runs
        # Here and not in `train`: what it cannot work with is refused before anything runs.
        self._learner = algorithm.start(model, seed)
        self._at = RunState()
        self._start: StartingPolicy | None = None
        self._checkpointer = Checkpointer(
            checkpointing, folder=folder, names=names | {"seed": str(seed)}, learner=self._learner, collector=collector
        )

    def resume(self) -> None:
        """Take up the run of the folder where its last checkpoint left it; from the start if it has none.

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
        title = f"{self._names['algorithm']} on {self._names['env']}, seed {self._seed}"
        try:
            with (
                RunProgress(title, instances=self._evaluator.instances, shown=collectives.rank() == 0) as progress,
                stop_on_signals(progress.say) as stop,
            ):
                self._start = self._start or self._starting_policy()
                if self._at.last is None:
                    self._at.evaluation_cost += self._start.cost
                    self._tell_faults(self._start.fault_examples, progress)
                    self._at.evaluation_faults += self._start.faults
                    self._evaluate(progress, sampled=True)
                    self._checkpointer.save(self._at)
                while self._fraction < 1.0 and not collectives.any_of(stop.made):
                    measured = self._advance(progress)
                    if measured and self._fraction < 1.0 and (reason := self._behind()):
                        status = "pruned"
                        break
                    if reason := self._budget.out_of_reach(self._at.idle_in_a_row):
                        progress.say(reason)
                        self._evaluate(progress, sampled=True)
                        self._checkpointer.save(self._at)
                        break
                if self._fraction < 1.0 and reason is None:
                    status, reason = "interrupted", "stopped by a signal"
                    self._checkpointer.save(self._at)
                for line in closing_lines(self._at, self._budget):
                    progress.say(line)
            self._save_model()
        except KeyboardInterrupt:
            status, reason = "interrupted", "stopped at once by a second signal"
        except BaseException as error:
            with suppress(OSError):  # a full disk should not hide what went wrong
                self._record("failed", f"{type(error).__name__}: {error}")
            raise
        return self._record(status, reason)

    @property
    def outcome(self) -> str:
        """Success (or return) before and after, and what it took, in words."""
        at = self._at
        if at.first is None or at.last is None:
            return "stopped before the first measurement"
        (name, before), (_, after) = at.first.score, at.last.score
        return (
            f"{self._evaluator.instances} {name} {before:.3f} -> {after:.3f} "
            f"in {at.cost.episodes:,} episodes, {at.cost.generated_tokens:,} generated tokens, {at.cost.seconds:.1f} s"
        )

    @property
    def _fraction(self) -> float:
        return self._budget.fraction(self._at.cost)

    def _behind(self) -> str | None:
        """Say why the run should end early, on all processes alike."""
        reason = self._pruner.behind(self._folder) if collectives.rank() == 0 else ""
        return (reason or "pruned") if collectives.any_of(bool(reason)) else None

    def _advance(self, progress: RunProgress) -> bool:
        """Run one generation, then measure and save where that is due; return whether it was measured."""
        at, before = self._at, self._fraction
        sent = collectives.bytes_sent()
        plan = self._learner.ask(at.generation)
        batch = self._collector.collect(plan)
        for note in self._collector.take_notes():
            progress.say(note)
        self._tell_faults(batch.faults, progress)
        at.faults += fault_counts(batch)
        report = self._learner.tell(batch)
        for note in report.notes:
            progress.say(note)
        finite = self._weights_are_finite()
        collectives.check_same(dict(self._model.network.named_parameters()), f"generation {at.generation + 1}")
        at.cost = at.cost + batch.cost + joint_cost(report.cost)
        at.generation += 1
        at.outcomes[report.outcome.value if finite else Outcome.NOT_FINITE.value] += 1
        at.idle_in_a_row = 0 if report.cost.updates else at.idle_in_a_row + 1
        at.dropped += not finite
        at.dropped_in_a_row = 0 if finite else at.dropped_in_a_row + 1
        figures = generation_metrics(batch, report, faults=at.faults, dropped=at.dropped)
        if collectives.world_size() > 1:
            sent = collectives.bytes_sent() - sent
            figures |= {"processes/bytes": float(sent), "processes/waiting": self._collector.waiting}
        self._log("train", figures)
        if not finite:
            self._drop(progress)
        if at.nothing_but_faults and (at.generation >= MOST_BROKEN or self._fraction >= 1.0):
            raise BrokenEnvironment(
                f"faults of the environment ended all {at.cost.episodes:,} training episodes ({listed(at.faults)}): "
                f"{batch.faults[0]}; tracebacks are in {self._folder / folder_names.FAULTS}"
            )
        progress.generation(self._fraction, float(batch.return_B.mean()), at.cost, at.fault_share)
        points = self._evaluator.points
        due = self._fraction >= 1.0 or int(self._fraction * points) > int(before * points)
        if due:
            self._evaluate(progress, sampled=self._fraction >= 1.0)
        if due or self._checkpointer.due:
            self._checkpointer.save(at)
        return due

    def _weights_are_finite(self) -> bool:
        return bool(torch.stack([p.detach().isfinite().all() for p in self._model.network.parameters()]).all())

    def _drop(self, progress: RunProgress) -> None:
        """Go back to the last checkpoint from weights that are not finite. Raise RuntimeError if it was once too often."""
        at, fault = self._at, "weights that are not finite"
        progress.say(f"generation {at.generation} dropped: {fault}")
        checkpoint = self._checkpointer.load()
        if checkpoint is None:
            raise RuntimeError(f"generation {at.generation} left {fault}, and there is no checkpoint to go back to")
        self._checkpointer.apply(checkpoint)
        if at.dropped_in_a_row >= MOST_DROPPED:
            self._save_model()
            raise RuntimeError(
                f"{MOST_DROPPED} generations in a row were dropped, the last for {fault}; the last good state is saved; "
                "take smaller steps or look at the rewards"
            )

    def _evaluate(self, progress: RunProgress, *, sampled: bool) -> None:
        """Measure the model. sampled: also sample answers for pass@k, which is done at a run's ends alone."""
        evaluation = self._evaluator.measure(self._collector, sampled=sampled)
        assert self._start is not None
        divergence, cost = self._start.divergence()
        self._tell_faults(evaluation.fault_examples, progress)
        self._at.measured(replace(evaluation, trajectories=None, fault_examples=()))
        self._at.evaluation_cost += cost
        self._log("eval", evaluation_metrics(evaluation, spent=self._fraction, divergence=divergence))
        episodes = evaluation.trajectories.transcripts if evaluation.trajectories else ()
        for tracker in self._trackers:
            tracker.log_transcripts(self._at.generation, [readable(episode) for episode in episodes])
        progress.evaluation(self._fraction, evaluation, self._at.cost, self._at.fault_share)

    def _tell_faults(self, examples: Sequence[Fault], progress: RunProgress) -> None:
        """Report each kind of fault once in a run."""
        for line in first_seen(examples, self._at.all_faults, self._folder):
            progress.say(line)

    def _starting_policy(self) -> StartingPolicy:
        return StartingPolicy(self._collector, episodes=min(EPISODES, self._evaluator.episodes))

    def _log(self, kind: str, figures: dict[str, float]) -> None:
        axes: dict[str, float | int | str] = {
            "kind": kind,
            "generation": self._at.generation,
            "updates": self._at.cost.updates,
            **on_axes(self._at.cost),
        }
        for tracker in self._trackers:
            tracker.log(axes | figures)

    def _save_model(self) -> None:
        """Write `model/` in the place of an earlier one."""
        if collectives.rank() == 0:
            write_folder(self._folder / folder_names.MODEL, self._model.save)

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
            device=self._model.device,
        )
        try:
            if collectives.rank() == 0:
                write_summary(self._folder, summary)
        finally:
            for tracker in self._trackers:
                tracker.close()
        return summary.model_dump(mode="json")

"""One run: ask, collect, tell, until the budget is spent."""

from collections.abc import Sequence
from pathlib import Path

from evotext.models.language_model import LanguageModel
from evotext.protocols import Algorithm, Tracker
from evotext.rollouts.collector import Collector
from evotext.runner.budget import Budget
from evotext.runner.evaluation import Evaluation, Evaluator
from evotext.runner.memory import forget_peak_memory
from evotext.runner.progress import RunProgress
from evotext.runner.stop import stop_on_signals
from evotext.runner.summary import Status, summarise, write_json
from evotext.types import Cost, Trajectories, Transcript, UpdateReport


class Run:
    """Tunes a model with an algorithm and records everything in a folder.

    The runner knows nothing of the algorithm's family: both ES and RL are asked for a plan and told the outcome.
    Raises what `algorithm.start` raises for a model that it cannot tune.
    names: what `algorithm`, `env` and `model` are called in the records.
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
    ) -> None:
        self._algorithm, self._model, self._collector = algorithm, model, collector
        self._budget, self._evaluator, self._trackers = budget, evaluator, trackers
        self._seed, self._names, self._folder = seed, names, folder
        forget_peak_memory(model.device)  # of a process's earlier runs
        # Here and not in `train`: what it cannot work with is refused before anything runs.
        algorithm.start(model, seed)
        self._cost, self._evaluation_cost = Cost(), Cost()
        self._generation = 0
        self._first: Evaluation | None = None
        self._last: Evaluation | None = None

    def train(self) -> dict[str, object]:
        """Run to the end of the budget and return the summary, which is also written to `summary.json`.

        A stop from outside ends the run as `interrupted`. An error ends it as `failed` and is raised again. In every
        case what was logged so far is on disk. The weights are saved unless an error or a second signal broke a generation off.
        """
        status: Status = "failed"
        reason: str | None = None
        title = f"{self._names['algorithm']} on {self._names['env']}, seed {self._seed}"
        try:
            with RunProgress(title) as progress, stop_on_signals(progress.say) as stop:
                self._evaluate(progress, sampled=True)
                while self._fraction < 1.0 and not stop.made:
                    self._advance(progress)
                if stop.made:
                    status, reason = "interrupted", "stopped by a signal"
                else:
                    status = "completed"
            self._model.save(self._folder / "model")
        except KeyboardInterrupt:
            status, reason = "interrupted", "stopped at once by a second signal"
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            summary = self._record(status, reason)
        return summary

    @property
    def outcome(self) -> str:
        """Success before and after, and what it took, in words."""
        if self._first is None or self._last is None:
            return "stopped before the first measurement"
        return (
            f"held-out success {self._first.success:.3f} -> {self._last.success:.3f} in {self._cost.episodes:,} episodes, "
            f"{self._cost.generated_tokens:,} generated tokens, {self._cost.seconds:.1f} s"
        )

    @property
    def _fraction(self) -> float:
        return self._budget.fraction(self._cost)

    def _advance(self, progress: RunProgress) -> None:
        """One generation, and a measurement where one is due."""
        before = self._fraction
        plan = self._algorithm.ask(self._generation)
        batch = self._collector.collect(plan)
        report = self._algorithm.tell(batch)
        self._cost = self._cost + batch.cost + report.cost
        self._generation += 1
        self._log_generation(batch, report)
        progress.generation(self._fraction, float(batch.return_B.mean()), self._cost)
        points = self._evaluator.points
        if self._fraction >= 1.0 or int(self._fraction * points) > int(before * points):
            self._evaluate(progress, sampled=self._fraction >= 1.0)

    def _evaluate(self, progress: RunProgress, *, sampled: bool) -> None:
        """sampled: whether to sample answers for pass@k too, which is done at a run's ends alone."""
        evaluation = self._evaluator.measure(self._collector, sampled=sampled)
        self._evaluation_cost += evaluation.cost
        self._first = self._first or evaluation
        self._last = evaluation
        self._log(
            "eval",
            {
                "eval/return": evaluation.mean_return,
                "eval/success": evaluation.success,
                "eval/mean_length": evaluation.mean_tokens,
                "eval/seconds": evaluation.cost.seconds,
                **{f"eval/pass@{k}": share for k, share in evaluation.pass_at.items()},
            },
        )
        texts = [readable(transcript) for transcript in evaluation.trajectories.transcripts]
        for tracker in self._trackers:
            tracker.log_transcripts(self._generation, texts)
        progress.evaluation(self._fraction, evaluation, self._cost)

    def _log_generation(self, batch: Trajectories, report: UpdateReport) -> None:
        shared = {
            "return_mean": float(batch.return_B.mean()),
            "success_rate": float(batch.success_B.double().mean()),
            "rollout_seconds": batch.cost.rollout_seconds,
            "env_seconds": batch.cost.env_seconds,
            "update_seconds": report.cost.update_seconds,
        }
        self._log("train", shared | report.metrics)

    def _log(self, kind: str, figures: dict[str, float]) -> None:
        cost = self._cost
        axes: dict[str, float | int | str] = {
            "kind": kind,
            "generation": self._generation,
            "episodes": cost.episodes,
            "generated_tokens": cost.generated_tokens,
            "seconds": cost.seconds,
            "flops": cost.flops,
        }
        for tracker in self._trackers:
            tracker.log(axes | figures)

    def _record(self, status: Status, reason: str | None) -> dict[str, object]:
        for tracker in self._trackers:
            tracker.close()
        summary = summarise(
            names=self._names,
            seed=self._seed,
            status=status,
            reason=reason,
            budget=self._budget,
            evaluator=self._evaluator,
            first=self._first,
            last=self._last,
            cost=self._cost,
            evaluation_cost=self._evaluation_cost,
            device=self._model.device,
        )
        write_json(self._folder / "summary.json", summary)
        return summary


def readable(transcript: Transcript) -> str:
    """One episode as lines of text."""
    lines = []
    for said, answered in transcript.turns:
        lines += [f"env> {said}", f"llm> {answered}"]
    ending = f"return {transcript.episode_return:g}" + (f" ({transcript.note})" if transcript.note else "")
    return "\n".join([*lines, ending])

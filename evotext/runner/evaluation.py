"""Success on held-out instances: the same for every algorithm and every seed."""

from dataclasses import dataclass

from evotext.instances import held_out_instances
from evotext.rollouts.collector import Collector
from evotext.types import RolloutPlan, Sampling, Trajectories
from evotext.validation import NonNegativeFloat, PositiveInt, checked


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One measurement of a model."""

    episodes: int
    """Held-out episodes."""
    mean_return: float
    """Their mean return."""
    success: float
    """Share of them with the greatest return that the task can pay."""
    mean_tokens: float
    """Tokens that the policy wrote in an episode, on average."""
    seconds: float
    """What the measurement took; it is not charged to the budget."""
    trajectories: Trajectories | None = None
    """The episodes themselves; None once the measurement has been read back from a checkpoint."""


class Evaluator:
    """Measures a model on the held-out instances of a task.

    episodes: how many instances, one episode each. points: measurements over a run besides the one before it.
    temperature: of decoding; 0 is greedy.
    """

    @checked
    def __init__(self, *, episodes: PositiveInt, points: PositiveInt, temperature: NonNegativeFloat) -> None:
        self.episodes, self.points, self.temperature = episodes, points, temperature

    @property
    def decoding(self) -> str:
        """The decoding in words, for records."""
        return "greedy" if self.temperature == 0.0 else f"temperature {self.temperature:g}"

    def measure(self, collector: Collector) -> Evaluation:
        """Run the held-out episodes with the model's present weights."""
        batch = collector.collect(
            RolloutPlan(
                seed=0,
                generation=0,
                instances=held_out_instances(self.episodes),
                groups=tuple(range(self.episodes)),
                sampling=Sampling(temperature=self.temperature),
                split="test",
            )
        )
        return Evaluation(
            episodes=self.episodes,
            mean_return=float(batch.return_B.mean()),
            success=float(batch.success_B.double().mean()),
            mean_tokens=float(batch.policy_mask_BT.sum() / self.episodes),
            seconds=batch.cost.seconds,
            trajectories=batch,
        )

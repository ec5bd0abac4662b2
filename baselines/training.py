"""The core that GRPO, PPO and SFT share: a scored policy, optimizer steps over a generation's rows, and the report on them.

Shapes: B rows, K rows of a part, N actions (a row's policy tokens, padded on the right).
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from evotext.distributed import collectives
from evotext.models.language_model import LanguageModel
from evotext.optimization.factory import OptimizerFactory, check_optimizer
from evotext.optimization.schedules import Schedule
from evotext.types import Cost, Credit, Outcome, UpdateReport
from evotext.validation import PositiveFloat, PositiveInt, checked_record

from .gradient_checkpointing import check_checkpointable
from .inner_loop import Figures, MicroBatches, minibatches
from .policy import Scorer
from .rollout_metrics import trained_on_metrics
from .stepper import Stepper, Steps

Work = Callable[[Tensor], float | None]
"""Adds the gradient of some rows (K,) to those of the rows before."""


@checked_record
class TrainingSettings:
    """The hyperparameters that each of the three has."""

    epochs: PositiveInt
    minibatches: PositiveInt
    micro_rows: PositiveInt
    gradient_checkpointing: bool
    max_grad_norm: PositiveFloat | None
    optimizer: OptimizerFactory
    learning_rate_schedule: Schedule
    shardable: ClassVar[Literal[True]] = True

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer)

    @property
    def one_step(self) -> bool:
        """Whether a batch makes a single step, in which the policy is the one that sampled."""
        return self.epochs == self.minibatches == 1


class Training:
    """A policy in training.

    policy: its scorer; None makes one. reference: whether the starting weights score, too: a frozen copy of them, or
    the network without its adapter where there is one.
    groups: parameters to train besides the policy's, each group with its options as torch.optim takes them.
    Raises ValueError for a network whose layers cannot be computed again, if they are to be.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        model: LanguageModel,
        seed: int,
        *,
        policy: Scorer | None = None,
        reference: bool = False,
        groups: Sequence[dict[str, Any]] = (),
    ) -> None:
        if settings.gradient_checkpointing:
            check_checkpointable(model.network)
        self.settings, self.device, self.seed, self.tokens_seen = settings, model.device, seed, 0
        self.spent = 0.0
        """Share of the budget before this generation."""
        self.policy = policy or Scorer(model.network, checkpoints=settings.gradient_checkpointing)
        self.reference = _reference(model) if reference else None
        self._keeps_copy = reference and _keeps_copy(model)
        self.micro = MicroBatches(settings.micro_rows, in_step=model.sharding is not None)
        self.stepper = Stepper(
            settings.optimizer,
            [{"params": model.trained_parameters}, *groups],
            max_grad_norm=settings.max_grad_norm,
            schedule=settings.learning_rate_schedule,
        )

    def begin(self, generation: int) -> float:
        """Set the learning rate of a generation; return the time, for `report`."""
        self.stepper.learning_rate.follow(generation, self.spent)
        return time.perf_counter()

    def parts(self, learns_B: Tensor, generation: int) -> list[list[Tensor]]:
        """Return the minibatches of each epoch, without those that hold no row to learn from."""
        settings, rows = self.settings, len(learns_B)
        epochs = [
            minibatches(rows, settings.minibatches, seed=self.seed, generation=generation, epoch=epoch)
            for epoch in range(settings.epochs)
        ]
        return [
            [part_K for part_K in (p.to(learns_B.device) for p in parts) if learns_B[part_K].any()] for parts in epochs
        ]

    def improve(
        self,
        epochs: Sequence[Sequence[Tensor]],
        learns_B: Tensor,
        length_B: Tensor,
        work: Callable[[Tensor, Steps], Work],
        figures: Figures,
        *,
        most: float | None = None,
    ) -> Steps:
        """Take an optimizer step for each minibatch of `parts`.

        work: told of a minibatch and the steps taken before it, returns what is done with each of its micro-batches.
        most: drop a step, and all that follow, for which the sum of what this returned exceeds it.
        """
        steps = Steps()
        for part_K in (part_K for parts in epochs for part_K in parts):
            total = self.micro.run(
                part_K[learns_B[part_K]], length_B, work(part_K, steps), figures, self.stepper.forget
            )
            if most is not None and collectives.total(total) > most:
                self.stepper.forget()
                steps.stopped = True
                break
            steps.take(self.stepper, figures)
        return steps

    def report(
        self,
        steps: Steps,
        metrics: dict[str, float],
        *,
        begin: float,
        cost: Cost,
        outcome: Outcome | None = None,
        notes: tuple[str, ...] = (),
        credit: Credit | None = None,
    ) -> UpdateReport:
        """Return the report of a generation: these metrics and those of its steps, this cost and that of the update.

        outcome: None takes the steps' own.
        """
        metrics = metrics | trained_on_metrics(steps, self.tokens_seen, self.stepper.learning_rate.now)
        cost += Cost(update_seconds=time.perf_counter() - begin, updates=steps.taken) + self.policy.spent()
        if self.reference is not None:
            cost += self.reference.spent()
        return UpdateReport(
            outcome=outcome or steps.outcome,
            metrics=metrics,
            cost=cost,
            notes=notes + self.micro.notes(),
            credit=credit,
        )

    def state_dict(self) -> dict[str, object]:
        """Return the optimizer's state, the reference's weights, if they are kept, and the count of tokens."""
        reference = self.reference.network.state_dict() if self.reference is not None and self._keeps_copy else None
        return {"steps": self.stepper.state_dict(), "reference": reference, "tokens_seen": self.tokens_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.stepper.load_state_dict(state["steps"])
        if self.reference is not None and self._keeps_copy:
            self.reference.network.load_state_dict(state["reference"])
        self.tokens_seen = int(state["tokens_seen"])


def _keeps_copy(model: LanguageModel) -> bool:
    """Return whether the reference has its own weights. Adapters add nothing at first; divided ones cannot be switched off."""
    return model.adapter is None or model.sharding is not None


def _reference(model: LanguageModel) -> Scorer:
    """Return a scorer of the policy that the model starts as."""
    if _keeps_copy(model):
        return Scorer(model.copied(frozen=True))
    return Scorer(model.network, disabled=model.adapter)

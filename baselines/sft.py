"""SFT: supervised fine-tuning on demonstrations, as a baseline and as a warm-up before RL.

Each generation draws N demonstrations of its own and maximises the likelihood of their answers, end tokens included:

    loss = - (1 / answers' tokens) sum_i sum_t log pi(answer token t of demonstration i | what stands before it)

What the environment says is a condition and never a target, in every turn. No episode is run by the policy: the plan has
no rows. What a budget is charged with: each demonstration is an episode, and so is each that its demonstrator played and
threw away; the tokens of its answers count as generated; the passes count as in RL. A budget so spent buys answers that
others gave, which is more than rewards tell: this is an upper mark beside RL and ES, no rival with the same information.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from evotext.distributed import collectives
from evotext.keys.instances import train_instances
from evotext.models.language_model import LanguageModel
from evotext.optimization.factory import OptimizerFactory, check_optimizer
from evotext.policy.actions import Actions, cut_out
from evotext.types import Cost, Demonstration, RolloutPlan, Sampling, Trajectories, UpdateReport
from evotext.validation import PositiveFloat, PositiveInt, checked

from .gradient_checkpointing import check_checkpointable
from .inner_loop import Figures, MicroBatches, minibatches
from .losses import token_weights
from .policy import Scorer
from .rollout_metrics import trained_on_metrics
from .stepper import Stepper, Steps


class SFT:
    """Hyperparameters: see conf/algorithm/sft.yaml, where each stands with its unit.

    demonstrations: called with (count, seed), yields so many, a pure function of both; raises ValueError if it has none.
    """

    @checked
    def __init__(
        self,
        *,
        demonstrations: Callable[[int, int], Iterable[Demonstration]],
        episodes: PositiveInt,
        epochs: PositiveInt,
        minibatches: PositiveInt,
        micro_rows: PositiveInt,
        gradient_checkpointing: bool,
        max_grad_norm: PositiveFloat | None,
        optimizer: OptimizerFactory,
        learning_rate_schedule: Callable[[int], float],
    ) -> None:
        check_optimizer(optimizer)
        if minibatches > episodes:
            raise ValueError(f"minibatches: expected at most episodes = {episodes}, got {minibatches}")
        self.demonstrations, self.episodes = demonstrations, episodes
        self.epochs, self.minibatches, self.micro_rows = epochs, minibatches, micro_rows
        self.gradient_checkpointing = gradient_checkpointing
        self._max_grad_norm, self._optimizer, self._rate_schedule = max_grad_norm, optimizer, learning_rate_schedule

    def start(self, model: LanguageModel, seed: int) -> "SFT":
        """Build the optimizer. Raises ValueError for a task without demonstrations."""
        if self.gradient_checkpointing:
            check_checkpointable(model.network)
        self._model, self._seed, self._tokens_seen = model, seed, 0
        self._encoded(self._drawn(0, 1))  # what cannot be taught is refused before anything runs
        self._policy = Scorer(model.network, checkpoints=self.gradient_checkpointing)
        self._micro = MicroBatches(self.micro_rows)
        groups = [{"params": model.trained_parameters}]
        self._stepper = Stepper(
            self._optimizer, groups, max_grad_norm=self._max_grad_norm, schedule=self._rate_schedule
        )
        return self

    def ask(self, generation: int) -> RolloutPlan:
        """No rows: nothing is generated."""
        return RolloutPlan(
            seed=self._seed, generation=generation, instances=(), groups=(), sampling=Sampling(temperature=1.0)
        )

    def tell(self, batch: Trajectories) -> UpdateReport:
        """Optimizer steps on the generation's demonstrations."""
        begin, generation = time.perf_counter(), batch.plan.generation
        self._stepper.learning_rate.follow(generation)
        taught = self._drawn(generation, self.episodes)
        drawn = time.perf_counter()
        actions = self._encoded(taught)
        self._tokens_seen += int(actions.length_B.sum())
        figures = Figures()
        steps = self._improve(actions, generation, figures)
        metrics = figures.result()
        metrics |= trained_on_metrics(steps, self._tokens_seen, self._stepper.learning_rate.now)
        cost = Cost(env_seconds=drawn - begin, update_seconds=time.perf_counter() - drawn, updates=steps.taken)
        if collectives.rank() == 0:  # all processes drew the same ones, and counts of all are added up
            cost += Cost(
                episodes=sum(demonstration.played for demonstration in taught),
                env_steps=sum(len(demonstration.turns) for demonstration in taught),
                generated_tokens=int(actions.mask_BN.sum()),
            )
        cost += self._policy.spent()
        return UpdateReport(outcome=steps.outcome, metrics=metrics, cost=cost, notes=self._micro.notes())

    def state_dict(self) -> dict[str, object]:
        """The optimizer's state and the count of tokens; demonstrations are functions of seed and generation."""
        return {"steps": self._stepper.state_dict(), "tokens_seen": self._tokens_seen}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Undo `state_dict`."""
        self._stepper.load_state_dict(state["steps"])  # type: ignore[arg-type]
        self._tokens_seen = int(state["tokens_seen"])  # type: ignore[call-overload]

    def _drawn(self, generation: int, count: int) -> list[Demonstration]:
        (seed,) = train_instances(self._seed, generation, 1)
        return list(self.demonstrations(count, seed))

    def _encoded(self, taught: list[Demonstration]) -> Actions:
        """The answers' tokens as actions, in the pieces in which they would have been generated."""
        encode, longest = self._model.chat.conversation, self._model.context_length
        rows = [encode(demonstration.turns, demonstration.instructions) for demonstration in taught]
        width = max(len(ids) for ids, _ in rows)
        if width > longest:
            raise ValueError(
                f"demonstrations: expected conversations of at most {longest} tokens (the model's context), got "
                f"one of {width}; make the task shorter or take a model with a longer context"
            )
        tokens_BT = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows])
        mask_BT = torch.tensor([mask + [False] * (width - len(mask)) for _, mask in rows])
        nothing_BT = torch.zeros(mask_BT.shape)
        return cut_out(
            tokens_BT,
            torch.tensor([len(ids) for ids, _ in rows]),
            mask_BT,
            turn_BT=nothing_BT.long(),
            reward_BT=nothing_BT,
            logprob_BT=nothing_BT,
            device=self._model.device,
        )

    def _improve(self, actions: Actions, generation: int, figures: Figures) -> Steps:
        """The epochs."""
        steps = Steps()
        for epoch in range(self.epochs):
            for part_K in minibatches(
                actions.rows, self.minibatches, seed=self._seed, generation=generation, epoch=epoch
            ):
                part_K = part_K.to(actions.mask_BN.device)
                inside_BN = torch.zeros_like(actions.mask_BN)
                inside_BN[part_K] = actions.mask_BN[part_K]
                weight_BN = token_weights(inside_BN, "token", rows=len(part_K), max_tokens=1)
                work = partial(self._accumulate, actions, weight_BN, figures)
                self._micro.run(part_K, actions.length_B, work, figures, self._stepper.forget)
                steps.take(self._stepper, figures)
        return steps

    def _accumulate(self, actions: Actions, weight_BN: Tensor, figures: Figures, row_K: Tensor) -> None:
        """Add the gradient of some rows."""
        part = actions.select(row_K)
        scores = self._policy.score(part, temperature=1.0)
        weight_KN = weight_BN[row_K, : part.mask_BN.shape[1]].to(scores.logprob_BN.dtype)
        (-scores.logprob_BN * weight_KN).sum().backward()
        mask = part.mask_BN
        loss, entropy = -scores.logprob_BN.detach()[mask].mean(), scores.entropy_BN[mask].nanmean()
        figures.mean([("loss", float(loss)), ("entropy", float(entropy))], float(mask.sum()))

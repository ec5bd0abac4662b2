"""SFT: supervised fine-tuning on demonstrations, as a baseline and as a warm-up before RL.

Each generation draws N demonstrations of its own and maximises the likelihood of their answers, end tokens included:

    loss = - (1 / answers' tokens) sum_i sum_t log pi(answer token t of demonstration i | what stands before it)

The environment's text is a condition and never a target, in every turn. The policy runs no episode: the plan has no rows.
The budget is charged for demonstrations: each is an episode, and so is each that its demonstrator played and threw away;
the tokens of its answers count as generated; the passes count as in RL. Such a budget buys answers that others gave, which
tell more than rewards: SFT is an upper bound beside RL and ES, not a rival with the same information.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from evotext.distributed import collectives
from evotext.keys.instances import train_instances
from evotext.models.language_model import LanguageModel
from evotext.policy.actions import Actions, cut_out
from evotext.types import Cost, Demonstration, RolloutPlan, Sampling, Trajectories, UpdateReport
from evotext.validation import PositiveInt, checked_record

from .inner_loop import Figures
from .losses import minibatch_weights
from .stepper import Steps
from .training import Training, TrainingSettings, Work


@checked_record
class SFT(TrainingSettings):
    """Hyperparameters; conf/algorithm/sft.yaml says of each what it is and its unit.

    demonstrations: called with (count, seed), yields so many, a pure function of both; raises ValueError if it has none.
    """

    demonstrations: Callable[[int, int], Iterable[Demonstration]]
    episodes: PositiveInt

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minibatches > self.episodes:
            raise ValueError(f"minibatches: expected at most episodes = {self.episodes}, got {self.minibatches}")

    def start(self, model: LanguageModel, seed: int) -> "SFTLearner":
        """Build the optimizer. Raise ValueError for a task whose demonstrations cannot be taught."""
        return SFTLearner(self, model, seed)


class SFTLearner:
    """The policy on its way, with the optimizer's state."""

    def __init__(self, hyper: SFT, model: LanguageModel, seed: int) -> None:
        self._hyper, self._model, self._seed = hyper, model, seed
        self.training = Training(hyper, model, seed)
        answers_of(self.demonstrations(0, 1), model)  # what cannot be taught is refused before anything runs

    def follow(self, spent: float) -> None:
        """Take note of the share of the budget that is spent."""
        self.training.spent = spent

    def ask(self, generation: int) -> RolloutPlan:
        """Return a plan without rows: nothing is generated."""
        return RolloutPlan(
            seed=self._seed, generation=generation, instances=(), groups=(), sampling=Sampling(temperature=1.0)
        )

    def tell(self, batch: Trajectories) -> UpdateReport:
        """Take optimizer steps on the generation's demonstrations."""
        generation = batch.plan.generation
        begin = self.training.begin(generation)
        taught = self.demonstrations(generation, self._hyper.episodes)
        drawn = time.perf_counter()
        actions, figures = answers_of(taught, self._model), Figures()
        self.training.tokens_seen += int(actions.length_B.sum())
        steps = self._improve(actions, generation, figures)
        cost = Cost(env_seconds=drawn - begin)
        if collectives.rank() == 0:  # all processes drew the same ones, and counts of all are added up
            cost += Cost(
                episodes=sum(demonstration.played for demonstration in taught),
                env_steps=sum(len(demonstration.turns) for demonstration in taught),
                generated_tokens=int(actions.mask_BN.sum()),
            )
        return self.training.report(steps, figures.result(), begin=drawn, cost=cost)

    def demonstrations(self, generation: int, count: int) -> list[Demonstration]:
        """Return the demonstrations of a generation, a function of it and the seed."""
        (seed,) = train_instances(self._seed, generation, 1)
        return list(self._hyper.demonstrations(count, seed))

    def state_dict(self) -> dict[str, object]:
        """Return the state of the training."""
        return self.training.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.training.load_state_dict(state)

    def _improve(self, actions: Actions, generation: int, figures: Figures) -> Steps:
        learns_B = torch.ones_like(actions.length_B, dtype=torch.bool)

        def work(part_K: Tensor, _: Steps) -> Work:
            return partial(self._accumulate, actions, minibatch_weights(actions.mask_BN, part_K), figures)

        epochs = self.training.parts(learns_B, generation)
        return self.training.improve(epochs, learns_B, actions.length_B, work, figures)

    def _accumulate(self, actions: Actions, weight_BN: Tensor, figures: Figures, row_K: Tensor) -> None:
        """Add the gradient of some rows."""
        part = actions.select(row_K)
        scores = self.training.policy.score(part, temperature=1.0)
        weight_KN = weight_BN[row_K, : part.mask_BN.shape[1]].to(scores.logprob_BN.dtype)
        (-scores.logprob_BN * weight_KN).sum().backward()
        mask = part.mask_BN
        loss, entropy = -scores.logprob_BN.detach()[mask].mean(), scores.entropy_BN[mask].nanmean()
        figures.mean([("loss", float(loss)), ("entropy", float(entropy))], float(mask.sum()))


def answers_of(taught: list[Demonstration], model: LanguageModel) -> Actions:
    """Return the answers' tokens as actions, in the pieces in which the model would have generated them.

    Raise ValueError for a conversation that is longer than the model's context.
    """
    rows = [model.chat.conversation(demonstration.turns, demonstration.instructions) for demonstration in taught]
    width = max(len(ids) for ids, _ in rows)
    if width > model.context_length:
        raise ValueError(
            f"demonstrations: expected conversations of at most {model.context_length} tokens (the model's context), got "
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
        device=model.device,
    )

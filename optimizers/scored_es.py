"""Scored ES: members of a population score episodes that the unperturbed policy has played; forward passes only.

No paper: the estimator is that of evolution strategies, the objective that of policy gradients. Each generation the stored
weights W play Q instances G times. With A_j the advantage of episode j among those of its instance
(evotext/policy/advantages.py) and l_j the sum of its policy tokens' log-probabilities, pair n scores k of the M episodes with
A_j != 0 by teacher forcing, both its members the same ones:

    delta_n = (1 / k) sum_j A_j (l_j(W + sigma E_n) - l_j(W - sigma E_n)) / (2 sigma)
    g = (M / B) mean_n clip(delta_n) E_n        W <- optimizer step along g (we maximise)

Without mirrored pairs l_j(W), one pass for all members, takes the place of l_j(W - sigma E_n), and 2 sigma becomes sigma; from
deltas their mean is taken off, which is curvature and no slope.

That is `context=perturbed`. With `context=shared` a draw scores single tokens, whose contexts no member perturbs:
shared_context.py has the estimator.

As sigma falls, the expectation of g tends to the gradient of (1 / B) sum_j A_j l_j, which is the policy gradient of REINFORCE
and of GRPO's objective with normalisation=constant, B being the number of episodes. No member needs a return: where
rewards are sparse and late, as over several turns, all members of EGGROLL fail alike and have nothing to tell apart, while a
score tells every two members apart.

In the second and later steps that are taken from one generation's episodes, each token's term is weighed by its ratio
rho = pi_W / pi_old, and drops out where PPO's clip would drop it: the estimate is that of the clipped surrogate's gradient.
The step's length follows the KL per episode (step_length.py).

Shapes: P members, N draws (pairs, or members), K episodes a member, B episodes, M those that are scored, T tokens, A actions (a
row's policy tokens).
"""

import time
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from evotext.keys.instances import train_instances
from evotext.models.language_model import LanguageModel
from evotext.noise import NoiseKey, Perturbation, PopulationNoise
from evotext.optimization.factory import OptimizerFactory, check_optimizer
from evotext.optimization.master_weights import NarrowWeights
from evotext.optimization.schedules import Schedule
from evotext.policy.actions import Actions, actions_of
from evotext.policy.advantages import Baseline
from evotext.types import Cost, Credit, Outcome, RolloutPlan, Trajectories, UpdateReport
from evotext.validation import NonNegativeFloat, PositiveFloat, PositiveInt, checked_record

from .guide import Guide
from .perturbations.guided import GuidedNoise
from .perturbations.local import Local
from .perturbed import PerturbedNetwork
from .pseudo_gradient import PseudoGradient
from .sampled_groups import advantages, sampled_groups
from .scores import deltas, episodes_to_score, member_weights, score_weights
from .scoring import Scoring
from .selection import choose, energies_of, excluding, policy_gradient
from .shared_context import SharedContext, Task
from .small_space import SmallSpaceWeights
from .step_length import StepLength


@checked_record
class ScoredES:
    """Hyperparameters; conf/algorithm/scored_es.yaml says of each what it is and in which unit."""

    prompts: PositiveInt
    group_size: Annotated[int, Field(ge=2)]
    temperature: PositiveFloat
    baseline: Baseline
    negative_weight: NonNegativeFloat
    unfinished: Literal["masked", "counted"]
    population: Annotated[int, Field(ge=2)]
    antithetic: bool
    scored_episodes: PositiveInt
    context: Literal["shared", "perturbed"]
    scored_tokens: PositiveInt
    sigma: PositiveFloat
    perturbation: Perturbation
    exclude: list[str]
    select: Annotated[float, Field(gt=0, le=1)] | None
    clip_deviations: PositiveFloat | None
    steps: PositiveInt
    clip_low: NonNegativeFloat
    clip_high: NonNegativeFloat
    kl_target: PositiveFloat | None
    kl_episodes: PositiveInt
    micro_rows: PositiveInt
    narrow_weights: NarrowWeights
    optimizer: OptimizerFactory
    sigma_schedule: Schedule
    learning_rate_schedule: Schedule

    def __post_init__(self) -> None:
        if self.antithetic and self.population % 2:
            raise ValueError(f"population: expected an even number since antithetic=true, got {self.population}")
        if isinstance(self.perturbation, Local) and (self.context, self.scored_tokens) != ("shared", 1):
            raise ValueError(
                "perturbation: expected low_rank, full_rank or guided unless context=shared and scored_tokens=1, got local"
            )
        check_optimizer(self.optimizer)

    def start(self, model: LanguageModel, seed: int) -> "ScoredESLearner":
        """Find out how each parameter is perturbed. Raise ValueError for one that cannot be and is not excluded."""
        return ScoredESLearner(self, model, seed)


class ScoredESLearner:
    """The weights on their way, with the optimizer's state and the basis of guided noise."""

    def __init__(self, hyper: ScoredES, model: LanguageModel, seed: int) -> None:
        self._hyper, self._model, self._seed, self._spent = hyper, model, seed, 0.0
        self._scoring = Scoring(model.network, rows=hyper.micro_rows)
        self._shared = SharedContext(self._scoring) if hyper.context == "shared" else None
        self._length = StepLength(self._scoring, episodes=hyper.kl_episodes, temperature=hyper.temperature)
        self._selected: list[str] | None = None
        self._settle(None)

    def _settle(self, selected: list[str] | None) -> None:
        """Begin with these matrices alone, with all that may move if None."""
        hyper = self._hyper
        network = PerturbedNetwork(self._model.network, exclude=hyper.exclude)
        if selected is not None:
            network = PerturbedNetwork(
                self._model.network, exclude=[*hyper.exclude, *excluding(list(network.parameters), selected)]
            )
        self._selected = selected
        self._guide = Guide(network=network, perturbation=hyper.perturbation)
        self._weights = SmallSpaceWeights(
            network,
            {name: spec for name, spec in network.parameters.items() if hyper.perturbation.moves(spec)},
            hyper.optimizer,
            schedule=hyper.learning_rate_schedule,
            narrow=hyper.narrow_weights,
            seed=self._seed,
            basis=None,
        )

    def follow(self, spent: float) -> None:
        """Take note of the share of the budget that is spent."""
        self._spent = spent

    def ask(self, generation: int) -> RolloutPlan:
        """Return a plan of Q fresh instances, each answered by G rows; no row is perturbed."""
        hyper = self._hyper
        return sampled_groups(
            train_instances(self._seed, generation, hyper.prompts),
            group_size=hyper.group_size,
            temperature=hyper.temperature,
            seed=self._seed,
            generation=generation,
        )

    def tell(self, batch: Trajectories) -> UpdateReport:
        """Score and move, once or more; a generation without signal changes nothing."""
        begin = time.perf_counter()
        generation = batch.plan.generation
        advantage_B = self._advantages(batch)
        scored_M = ((advantage_B != 0) & batch.policy_mask_BT.any(1)).nonzero()[:, 0]
        self._weights.follow(generation, self._spent)
        metrics = {
            "learning_rate": self._weights.learning_rate,
            "sigma": self._sigma(generation),
            "scored/episodes": float(len(scored_M)),
        }
        cost, flops, steps = Cost(), 0.0, 0
        if len(scored_M):
            actions = actions_of(batch, self._model.device)
            flops += self._guide.look(batch)
            if self._hyper.select is not None and self._selected is None:
                cost += self._select(actions, advantage_B, self._hyper.select)
                flops += self._guide.look(batch)
                self._weights.follow(generation, self._spent)
            self._weights.move_to(self._guide.basis)
            for step in range(self._hyper.steps):
                figures, spent = self._step(actions, advantage_B, scored_M, generation, step)
                metrics |= figures
                flops, steps = flops + spent, steps + 1
        metrics |= {"drift": self._weights.drift, "scored/steps": float(steps)}
        flops += self._scoring.spent()
        cost += Cost(update_seconds=time.perf_counter() - begin, updates=steps, flops=flops)
        outcome = Outcome.CHANGED if steps else Outcome.NO_SIGNAL
        notes, credit = self._scoring.take_notes(), Credit(name="advantage", value_B=advantage_B)
        return UpdateReport(outcome=outcome, metrics=metrics, cost=cost, notes=notes, credit=credit)

    def state_dict(self) -> dict[str, object]:
        """Return the optimizer's state, the masters, the basis, the step's length and what was selected."""
        return {
            "weights": self._weights.state_dict(),
            "guide": self._guide.state_dict(),
            "length": self._length.factor,
            "selected": self._selected,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Undo `state_dict`."""
        self._settle(state["selected"])  # type: ignore[arg-type]
        self._guide.load_state_dict(state["guide"])  # type: ignore[arg-type]
        self._weights.load_state_dict(state["weights"], self._guide.basis)  # type: ignore[arg-type]
        self._length.factor = float(state["length"])  # type: ignore[arg-type]

    def _select(self, actions: Actions, advantage_B: Tensor, share: float) -> Cost:
        """Choose the matrices that move from here on, by the gradient of these episodes."""
        gradient, cost = policy_gradient(self._model.network, actions, advantage_B, temperature=self._hyper.temperature)
        energies = energies_of(gradient, self._guide.network, self._hyper.perturbation, self._guide.basis)
        self._settle(list(choose(energies, share)))
        return cost

    def _population(self, rows: int) -> int:
        """Members that score so many episodes: where the last generation of a budget has fewer, as many fewer."""
        hyper = self._hyper
        share = hyper.population * rows // (hyper.prompts * hyper.group_size)
        return max(2, share - share % 2 if hyper.antithetic else share)

    def _sigma(self, generation: int) -> float:
        return self._hyper.sigma * self._hyper.sigma_schedule(generation, self._spent)

    def _advantages(self, batch: Trajectories) -> Tensor:
        """Return (B,), float64, those below 0 with a weight of their own."""
        advantage_B = advantages(batch, self._hyper.baseline, unfinished=self._hyper.unfinished)
        return torch.where(advantage_B < 0, self._hyper.negative_weight * advantage_B, advantage_B)

    def _step(
        self, actions: Actions, advantage_B: Tensor, scored_M: Tensor, generation: int, step: int
    ) -> tuple[dict[str, float], float]:
        """Draw noise and take one optimizer step; return metrics and operations, scoring left out."""
        hyper = self._hyper
        key = NoiseKey(
            seed=self._seed,
            generation=generation * hyper.steps + step,
            population=self._population(actions.rows),
            antithetic=hyper.antithetic,
            sigma=self._sigma(generation),
        )
        noise = self._guide.draw(key)
        weight_BA = advantage_B[:, None] * actions.mask_BN.cpu()
        if self._shared is None:
            delta_N, share = self._by_episode(actions, weight_BA, scored_M, key, noise, step)
        else:
            clip = (hyper.clip_low, hyper.clip_high) if step else None
            share = 1.0
            delta_N = self._shared.deltas(
                Task(
                    actions=actions,
                    advantage_BA=weight_BA,
                    key=key,
                    noise=noise,
                    per_draw=hyper.scored_tokens,
                    temperature=hyper.temperature,
                    clip=clip,
                )
            )
        weight_P, figures = member_weights(delta_N, key, hyper.clip_deviations)
        combine = noise.small.combine if isinstance(noise, GuidedNoise) else noise.combine
        gradient = PseudoGradient(combine, weight_P, share / (actions.rows * key.population))
        figures["update_norm"] = self._weights.ascend(gradient, self._length.factor)
        figures |= gradient.figures | {"dimensions": float(self._weights.dimensions)}
        if hyper.kl_target is not None:
            figures |= self._length.follow(actions, self._weights, hyper.kl_target * (step + 1))
        return figures, noise.combine_flops

    def _by_episode(
        self, actions: Actions, weight_BA: Tensor, scored_M: Tensor, key: NoiseKey, noise: PopulationNoise, step: int
    ) -> tuple[Tensor, float]:
        """Let members score whole episodes; return the slope of an episode's mean score along each draw, and how many count."""
        hyper = self._hyper
        row_NK = episodes_to_score(scored_M, actions.length_B.cpu(), key, hyper.scored_episodes)
        base_B = torch.zeros(actions.rows).double()
        if step or not hyper.antithetic:
            logprob_BA = self._scoring.unperturbed(actions, scored_M, temperature=hyper.temperature)
            old_BA = actions.old_logprob_BN.cpu().double() if step else logprob_BA
            weight_BA = score_weights(logprob_BA, old_BA, weight_BA, hyper.clip_low, hyper.clip_high)
            base_B = (weight_BA * logprob_BA).sum(1)
        temperature = hyper.temperature
        delta_N = deltas(self._scoring, actions, weight_BA, row_NK, key, noise, temperature=temperature, base_B=base_B)
        return delta_N, float(len(scored_M))

"""PPO on tokens: a clipped policy gradient with a learned value of every state.

Paper: Schulman et al. 2017, "Proximal policy optimization algorithms", arXiv 1707.06347; for language models Ziegler et
al. 2019, arXiv 1909.08593, and Huang et al. 2024, "The N+ implementation details of RLHF with PPO", arXiv 2403.17031.

Each of N episodes gets its own instance. An action is a token that the policy wrote; what the environment wrote stands
between two actions and is neither trained on nor counted in time. With old values V and advantages A from generalised
advantage estimation (baselines/advantages.py), targets T = V + A and their scale (baselines/return_scale.py), several epochs
of minibatches minimise

    mean_t [ L_clip(rho_t, A'_t) + value_coefficient L_value((V_t - mean) / spread) - entropy_coefficient H_t ]

    A'_t = (A_t - mean A) / max(std A, spread)
    r_t = the environment's reward at t - kl_coefficient * k1 estimate of KL_t(pi || reference)

Deviations: whitened advantages are never longer than the spread of the returns makes them: divided by their own deviation,
those of a batch in which all succeed or all fail would be the critic's error, blown up to the size of a signal. The critic
predicts returns in units of their scale, and its head and the policy have a bound on their gradients each, so that nothing
depends on what a success pays. The value head starts at zero; by default it shares the language model's trunk, which halves
the memory of a separate critic. An episode that a limit cut off ends there, as it does for every other algorithm and in
evaluations, unless `unfinished` says otherwise. An early stop on the approximate KL (k3 of old from new) is checked before
each optimizer step. Episodes in which the policy wrote nothing, whose rewards are not finite, or which an environment's
fault ended, are left out. While no two returns have ever differed, no step is taken.
"""

import dataclasses
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from evotext.distributed import collectives
from evotext.keys.instances import train_instances
from evotext.models.language_model import LanguageModel
from evotext.optimization.schedules import Schedule
from evotext.policy.actions import Actions, actions_of
from evotext.types import Credit, RolloutPlan, Sampling, Trajectories, UpdateReport
from evotext.validation import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, checked_record

from .actor_critic_update import ActorCriticUpdate, Judged
from .advantages import generalised_advantages, rates_between, whitened
from .critic import Critic, Trunk
from .inner_loop import Figures
from .kl_controller import KLController
from .losses import kl_divergence
from .notices import Once, gap_notes, unfinished_notes
from .policy import Scorer
from .rollout_metrics import add_gap, rollout_metrics
from .stepper import Steps
from .training import Training, TrainingSettings
from .unfinished import UnfinishedValued, bootstrapped_rows, compared_rows


@checked_record
class PPO(TrainingSettings):
    """Hyperparameters; conf/algorithm/ppo.yaml says of each what it is, its unit and its paper."""

    episodes: PositiveInt
    temperature: PositiveFloat
    gamma: Fraction
    gae_lambda: Fraction
    time_unit: Literal["token", "turn"]
    unfinished: UnfinishedValued
    whiten: bool
    return_memory: Fraction
    clip_low: NonNegativeFloat
    clip_high: NonNegativeFloat
    dual_clip: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None
    old_logprobs: Literal["sampler", "trainer"]
    value_clip: PositiveFloat | None
    value_coefficient: NonNegativeFloat
    value_learning_rate: PositiveFloat
    value_trunk: Trunk
    value_warm_up: NonNegativeInt
    detach_value: bool
    entropy_coefficient: NonNegativeFloat
    kl_coefficient: NonNegativeFloat
    kl_schedule: Schedule
    kl_target: PositiveFloat | None
    kl_horizon: PositiveInt
    target_kl: PositiveFloat | None
    gap_tolerance: PositiveFloat

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minibatches > self.episodes:
            raise ValueError(f"minibatches: expected at most episodes = {self.episodes}, got {self.minibatches}")
        if self.value_trunk == "own" and self.detach_value:
            raise ValueError(
                "detach_value: expected false with value_trunk=own, got true; a trunk of its own is "
                "trained by the value loss alone and would never change"
            )
        if self.unfinished == "bootstrapped" and self.gamma == 1:
            raise ValueError(
                "gamma: expected less than 1 with unfinished=bootstrapped, got 1; without a discount the "
                "value of going on and on has no bound"
            )
        self.controller()  # raises for what does not go together

    def controller(self) -> KLController:
        """Return the controller of the KL's coefficient, at its start."""
        return KLController(
            self.kl_coefficient, schedule=self.kl_schedule, target=self.kl_target, horizon=self.kl_horizon
        )

    def start(self, model: LanguageModel, seed: int) -> "PPOLearner":
        """Build the critic and the optimizer, and with a KL penalty a reference (`Training`)."""
        return PPOLearner(self, model, seed)


class PPOLearner:
    """The policy on its way, with its critic, the optimizer's state and the reference."""

    def __init__(self, hyper: PPO, model: LanguageModel, seed: int) -> None:
        self._hyper, self._once, self._kl = hyper, Once(), hyper.controller()
        policy = Scorer(
            model.network, checkpoints=hyper.gradient_checkpointing, entropies=hyper.entropy_coefficient > 0
        )
        self.critic = Critic(
            model, policy, trunk=hyper.value_trunk, detach=hyper.detach_value, memory=hyper.return_memory
        )
        groups: list[dict[str, Any]] = [
            {"params": self.critic.trunk_parameters},
            {"params": list(self.critic.head.parameters()), "lr": hyper.value_learning_rate},
        ]
        self.training = Training(
            hyper,
            model,
            seed,
            policy=policy,
            reference=hyper.kl_coefficient > 0,
            groups=[group for group in groups if group["params"]],
        )
        self.update = ActorCriticUpdate(
            training=self.training,
            critic=self.critic,
            temperature=hyper.temperature,
            clip_low=hyper.clip_low,
            clip_high=hyper.clip_high,
            dual_clip=hyper.dual_clip,
            value_clip=hyper.value_clip,
            value_coefficient=hyper.value_coefficient,
            entropy_coefficient=hyper.entropy_coefficient,
            target_kl=hyper.target_kl,
        )

    def follow(self, spent: float) -> None:
        """Take note of the share of the budget that is spent."""
        self.training.spent = spent

    def ask(self, generation: int) -> RolloutPlan:
        """Return a plan of N episodes, each of its own fresh instance."""
        episodes = self._hyper.episodes
        return RolloutPlan(
            seed=self.training.seed,
            generation=generation,
            instances=train_instances(self.training.seed, generation, episodes),
            groups=tuple(range(episodes)),
            sampling=Sampling(temperature=self._hyper.temperature),
            logprobs=True,
            last_observations=self._hyper.unfinished == "bootstrapped",
            groups_a_part=1,
        )

    def tell(self, batch: Trajectories) -> UpdateReport:
        """Take several epochs of optimizer steps on the batch."""
        device, begin = self.training.device, self.training.begin(batch.plan.generation)
        self._kl.begin(batch.plan.generation, self.training.spent)
        metrics = rollout_metrics(batch)
        figures, steps = Figures(), Steps()
        credit_B = torch.full((len(batch.return_B),), torch.nan, dtype=torch.float64)
        actions = actions_of(batch, device)
        counts_B = compared_rows(batch, self._hyper.unfinished).to(device)
        kept_K = (counts_B & actions.mask_BN.any(1) & actions.reward_BN.isfinite().all(1)).nonzero()[:, 0]
        if len(kept_K):
            follows_B = bootstrapped_rows(batch, self._hyper.unfinished).to(device)
            judged = self.judge(actions.select(kept_K), follows_B[kept_K], figures)
            if self.critic.scale.spread > 0 or self._hyper.entropy_coefficient > 0:
                generation = batch.plan.generation
                value_only = generation < self._hyper.value_warm_up
                steps = self.update(judged, generation=generation, value_only=value_only, figures=figures)
            mask_BN = judged.actions.mask_BN
            credit_B[kept_K.cpu()] = (judged.advantage_BN * mask_BN).sum(1).div(mask_BN.sum(1)).cpu().double()
            metrics["explained_variance"] = _explained_variance(judged.value_BN[mask_BN], judged.target_BN[mask_BN])
            metrics["value_mean"] = float(judged.value_BN[mask_BN].mean())
            metrics["return_spread"] = self.critic.scale.spread
        self.training.tokens_seen += int(batch.length_B.sum())
        metrics |= figures.result() | {"stopped_early": float(steps.stopped)}
        notes = self._once(
            gap=gap_notes(metrics, self._hyper.gap_tolerance),
            unfinished=unfinished_notes(metrics, self._hyper.unfinished),
        )
        credit = Credit(name="advantage", value_B=credit_B)
        return self.training.report(steps, metrics, begin=begin, cost=self.critic.spent(), notes=notes, credit=credit)

    def state_dict(self) -> dict[str, object]:
        """Return the state of the training, the critic's, and the KL's coefficient."""
        own = {"critic": self.critic.state_dict(), "kl_coefficient": self._kl.coefficient}
        return self.training.state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.training.load_state_dict(state)
        self.critic.load_state_dict(state["critic"])
        self._kl.coefficient = float(state["kl_coefficient"])

    @torch.no_grad()
    def judge(self, actions: Actions, follows_B: Tensor, figures: Figures) -> Judged:
        """Return values, advantages and targets before any step; with `old_logprobs: trainer` also log-probabilities.

        follows_B: whose last state is worth what the critic expects of it; that of the others is worth nothing.
        """
        hyper, mask_BN, scale = self._hyper, actions.mask_BN, self.critic.scale
        policy, reference = self.training.policy, self.training.reference
        wide = actions.reward_BN.dtype
        said_BN = torch.zeros(mask_BN.shape, dtype=wide, device=mask_BN.device)
        last_B = torch.zeros(len(mask_BN), dtype=wide, device=mask_BN.device)
        kl_BN, old_BN = torch.zeros_like(actions.reward_BN), torch.zeros_like(actions.old_logprob_BN)

        def work(row_K: Tensor) -> None:
            part = actions.select(row_K)
            width = part.mask_BN.shape[1]
            scores = policy.score(part, hyper.temperature)
            add_gap(figures, part, scores.logprob_BN)
            old_BN[row_K, :width] = scores.logprob_BN.to(old_BN.dtype)
            head_KN, last_B[row_K] = (head.to(wide) for head in self.critic.judge(part, scores))
            said_BN[row_K, :width] = torch.where(part.mask_BN, head_KN, 0.0)
            if reference is not None:
                reference_KN = reference.score(part, hyper.temperature).logprob_BN
                kl_KN = kl_divergence(scores.logprob_BN, reference_KN, "k1")
                kl_BN[row_K, :width] = kl_KN.to(wide)
                figures.mean([("kl", float(kl_KN[part.mask_BN].mean()))], float(part.mask_BN.sum()))

        self.training.micro.run(torch.arange(actions.rows, device=mask_BN.device), actions.length_B, work, figures)
        # Each has computed its rows and left 0 for the others.
        collectives.all_reduce([said_BN, last_B, kl_BN, old_BN])
        reward_BN = actions.reward_BN - self._kl.coefficient * kl_BN
        if reference is not None:
            figures.mean([("kl_coefficient", self._kl.coefficient)], 1.0)
            self._kl.follow(float(torch.where(mask_BN, kl_BN, 0.0).sum(1).mean()), actions.rows)
        value_BN = torch.where(mask_BN, scale.to_returns(said_BN), 0.0)
        bootstrap_B = torch.where(follows_B, scale.to_returns(last_B), 0.0)
        rates = (hyper.gamma, hyper.gae_lambda, hyper.time_unit)
        discount_BN, decay_BN = rates_between(mask_BN, actions.turn_BN, *rates)
        advantage_BN = generalised_advantages(reward_BN, value_BN, bootstrap_B, mask_BN, decay_BN, discount_BN)
        target_BN = value_BN + advantage_BN
        scale.follow(target_BN[mask_BN])
        if hyper.old_logprobs == "trainer":
            actions = dataclasses.replace(actions, old_logprob_BN=old_BN)
        return Judged(
            actions=actions,
            value_BN=value_BN,
            target_BN=target_BN,
            advantage_BN=whitened(advantage_BN, mask_BN, scale.spread) if hyper.whiten else advantage_BN,
            said_BN=said_BN,
            wanted_BN=torch.where(mask_BN, scale.to_units(target_BN), 0.0),
        )


def _explained_variance(value: Tensor, target: Tensor) -> float:
    """Return 1 - Var[target - value] / Var[target]: 1 for a perfect critic, 0 for the mean; NaN without spread."""
    spread = float(target.var(unbiased=False))
    return float("nan") if spread == 0 else 1.0 - float((target - value).var(unbiased=False)) / spread

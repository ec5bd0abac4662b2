"""PPO on tokens: a clipped policy gradient with a learned value of every state.

Paper: Schulman et al. 2017, "Proximal policy optimization algorithms", arXiv 1707.06347; for language models Ziegler et
al. 2019, arXiv 1909.08593, and Huang et al. 2024, "The N+ implementation details of RLHF with PPO", arXiv 2403.17031.

Each of N episodes gets its own instance. An action is a token that the policy wrote; what the environment wrote stands
between two actions and is neither trained on nor counted in time. With old values V and advantages A from generalised
advantage estimation (baselines/advantages.py), targets V + A, several epochs of minibatches minimise

    mean_t [ L_clip(rho_t, A_t) + value_coefficient L_value(V_t) - entropy_coefficient H_t ]

    r_t = the environment's reward at t - kl_coefficient * k1 estimate of KL_t(pi || reference)

The last state of a truncated episode is worth its value, that of a terminated one nothing.

Deviations: the value head starts at zero; by default it shares the language model's trunk, which halves the memory of a
separate critic. An early stop on the approximate KL (k3 of old from new) is checked before each optimizer step. Episodes in
which the policy wrote nothing, or whose rewards are not finite, are left out.
"""

import copy
import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from evotext.distributed import collectives
from evotext.keys.instances import train_instances
from evotext.models.language_model import LanguageModel
from evotext.optimization.factory import OptimizerFactory, check_optimizer
from evotext.policy.actions import Actions, actions_of
from evotext.types import Cost, RolloutPlan, Sampling, Trajectories, UpdateReport
from evotext.validation import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, checked

from .advantages import generalised_advantages, rates_between, whitened
from .critic import Critic, Trunk
from .gradient_checkpointing import check_checkpointable
from .inner_loop import Figures, MicroBatches, minibatches
from .kl_controller import KLController
from .losses import clipped_surrogate, kl_divergence, token_weights, value_loss
from .notices import gap_notes
from .policy import Scorer
from .rollout_metrics import add_gap, rollout_metrics, trained_on_metrics
from .stepper import Stepper, Steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Judged:
    """A batch as the policy and the value head saw it before the first step."""

    actions: Actions
    """The rows to learn from."""
    value_BN: Tensor
    """Old values (float64), 0 where there is no action."""
    advantage_BN: Tensor
    """Advantages, not yet whitened."""
    target_BN: Tensor
    """What the values are fitted to."""


class PPO:
    """Hyperparameters: see conf/algorithm/ppo.yaml, where each stands with its unit and paper."""

    @checked
    def __init__(
        self,
        *,
        episodes: PositiveInt,
        temperature: PositiveFloat,
        epochs: PositiveInt,
        minibatches: PositiveInt,
        micro_rows: PositiveInt,
        gradient_checkpointing: bool,
        gamma: Fraction,
        gae_lambda: Fraction,
        time_unit: Literal["token", "turn"],
        whiten: bool,
        clip_low: NonNegativeFloat,
        clip_high: NonNegativeFloat,
        dual_clip: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None,
        old_logprobs: Literal["sampler", "trainer"],
        value_clip: PositiveFloat | None,
        value_coefficient: NonNegativeFloat,
        value_learning_rate: PositiveFloat,
        value_trunk: Trunk,
        value_warm_up: NonNegativeInt,
        detach_value: bool,
        entropy_coefficient: NonNegativeFloat,
        kl_coefficient: NonNegativeFloat,
        kl_target: PositiveFloat | None,
        kl_horizon: PositiveInt,
        target_kl: PositiveFloat | None,
        max_grad_norm: PositiveFloat | None,
        optimizer: OptimizerFactory,
        gap_tolerance: PositiveFloat,
        learning_rate_schedule: Callable[[int], float],
    ) -> None:
        check_optimizer(optimizer)
        if minibatches > episodes:
            raise ValueError(f"minibatches: expected at most episodes = {episodes}, got {minibatches}")
        if value_trunk == "own" and detach_value:
            raise ValueError(
                "detach_value: expected false with value_trunk=own, got true; a trunk of its own is "
                "trained by the value loss alone and would never change"
            )
        KLController(kl_coefficient, target=kl_target, horizon=kl_horizon)  # raises for what does not go together
        self.episodes, self.temperature = episodes, temperature
        self.epochs, self.minibatches, self.micro_rows = epochs, minibatches, micro_rows
        self.gamma, self.gae_lambda, self.time_unit, self.whiten = gamma, gae_lambda, time_unit, whiten
        self.clip_low, self.clip_high, self.dual_clip = clip_low, clip_high, dual_clip
        self.old_logprobs = old_logprobs
        self.value_clip, self.value_coefficient = value_clip, value_coefficient
        self.entropy_coefficient, self.kl_coefficient, self.target_kl = entropy_coefficient, kl_coefficient, target_kl
        self._value_learning_rate, self._detach_value = value_learning_rate, detach_value
        self._max_grad_norm, self._optimizer = max_grad_norm, optimizer
        self.gap_tolerance, self._rate_schedule = gap_tolerance, learning_rate_schedule
        self.gradient_checkpointing, self.value_trunk = gradient_checkpointing, value_trunk
        self.value_warm_up, self._kl_target, self._kl_horizon = value_warm_up, kl_target, kl_horizon

    def start(self, model: LanguageModel, seed: int) -> "PPO":
        """Build the critic and the optimizer, and with a KL penalty keep a frozen copy of the starting weights."""
        if self.gradient_checkpointing:
            check_checkpointable(model.network)
        self._model, self._seed, self._tokens_seen = model, seed, 0
        self._policy, self._warned = (
            Scorer(model.network, checkpoints=self.gradient_checkpointing, entropies=self.entropy_coefficient > 0),
            False,
        )
        self._micro = MicroBatches(self.micro_rows)
        self._kl = KLController(self.kl_coefficient, target=self._kl_target, horizon=self._kl_horizon)
        self._critic = Critic(model, self._policy, trunk=self.value_trunk, detach=self._detach_value)
        groups: list[dict[str, Any]] = [
            {"params": [*model.trained_parameters, *self._critic.trunk_parameters]},
            {"params": list(self._critic.head.parameters()), "lr": self._value_learning_rate},
        ]
        self._stepper = Stepper(
            self._optimizer, groups, max_grad_norm=self._max_grad_norm, schedule=self._rate_schedule
        )
        self._reference: Scorer | None = None
        if self.kl_coefficient > 0:
            self._reference = Scorer(copy.deepcopy(model.network).requires_grad_(False))
        return self

    def ask(self, generation: int) -> RolloutPlan:
        """N episodes, each of its own fresh instance."""
        return RolloutPlan(
            seed=self._seed,
            generation=generation,
            instances=train_instances(self._seed, generation, self.episodes),
            groups=tuple(range(self.episodes)),
            sampling=Sampling(temperature=self.temperature),
            logprobs=True,
        )

    def tell(self, batch: Trajectories) -> UpdateReport:
        """Several epochs of optimizer steps on the batch."""
        begin = time.perf_counter()
        self._stepper.learning_rate.follow(batch.plan.generation)
        metrics = rollout_metrics(batch)
        figures, steps, stopped = Figures(), Steps(), False
        actions = actions_of(batch, self._model.device)
        kept_K = (actions.mask_BN.any(1) & actions.reward_BN.isfinite().all(1)).nonzero()[:, 0]
        if len(kept_K):
            cut_B = (
                batch.truncated_B & ~batch.faulty_B
            )  # what would have followed a fault is worth nothing: none is known
            judged = self._judge(actions.select(kept_K), cut_B.to(kept_K.device)[kept_K], figures)
            steps, stopped = self._improve(judged, batch.plan.generation, figures)
            mask_BN = judged.actions.mask_BN
            metrics["explained_variance"] = _explained_variance(judged.value_BN[mask_BN], judged.target_BN[mask_BN])
            metrics["value_mean"] = float(judged.value_BN[mask_BN].mean())
        self._tokens_seen += int(batch.length_B.sum())
        metrics |= figures.result() | {"stopped_early": float(stopped)}
        metrics |= trained_on_metrics(steps, self._tokens_seen, self._stepper.learning_rate.now)
        cost = Cost(update_seconds=time.perf_counter() - begin, updates=steps.taken)
        cost += self._policy.spent() + self._critic.spent()
        cost += self._reference.spent() if self._reference is not None else Cost()
        notes = () if self._warned else gap_notes(metrics, self.gap_tolerance)
        self._warned |= bool(notes)
        return UpdateReport(outcome=steps.outcome, metrics=metrics, cost=cost, notes=notes + self._micro.notes())

    def _improve(self, judged: _Judged, generation: int, figures: Figures) -> tuple[Steps, bool]:
        """The epochs; whether they stopped early."""
        actions = judged.actions
        used_BN = whitened(judged.advantage_BN, actions.mask_BN) if self.whiten else judged.advantage_BN
        steps, value_only = Steps(), generation < self.value_warm_up
        for epoch in range(self.epochs):
            parts = minibatches(actions.rows, self.minibatches, seed=self._seed, generation=generation, epoch=epoch)
            for part_K in parts:
                if not len(part_K):
                    continue  # fewer episodes than minibatches were left
                part_K = part_K.to(used_BN.device)
                inside_BN = torch.zeros_like(actions.mask_BN)
                inside_BN[part_K] = actions.mask_BN[part_K]
                weight_BN = token_weights(inside_BN, "token", rows=len(part_K), max_tokens=1)
                work = partial(self._accumulate, judged, used_BN, weight_BN, figures, value_only)
                moved = self._micro.run(part_K, actions.length_B, work, figures, self._stepper.forget)
                if self.target_kl is not None and collectives.total(moved) > self.target_kl:
                    self._stepper.forget()
                    return steps, True
                steps.take(self._stepper, figures)
        return steps, False

    def state_dict(self) -> dict[str, object]:
        """The critic, the optimizer's state, the KL's coefficient, the count of tokens and the reference, if there is one."""
        reference = None if self._reference is None else self._reference.network.state_dict()
        return {
            "critic": self._critic.state_dict(),
            "kl_coefficient": self._kl.coefficient,
            "steps": self._stepper.state_dict(),
            "reference": reference,
            "tokens_seen": self._tokens_seen,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Undo `state_dict`."""
        self._critic.load_state_dict(state["critic"])  # type: ignore[arg-type]
        self._kl.coefficient = float(state["kl_coefficient"])  # type: ignore[arg-type]
        self._stepper.load_state_dict(state["steps"])  # type: ignore[arg-type]
        if self._reference is not None:
            self._reference.network.load_state_dict(state["reference"])
        self._tokens_seen = int(state["tokens_seen"])  # type: ignore[call-overload]

    @torch.no_grad()
    def _judge(self, actions: Actions, truncated_B: Tensor, figures: Figures) -> _Judged:
        """Values, advantages and targets before anything changes; with `old_logprobs: trainer` also log-probabilities."""
        value_BN = torch.zeros(actions.mask_BN.shape, dtype=torch.float64, device=actions.mask_BN.device)
        last_B = torch.zeros(actions.rows, dtype=torch.float64, device=value_BN.device)
        kl_BN, old_BN = torch.zeros_like(actions.reward_BN), torch.zeros_like(actions.old_logprob_BN)

        def work(row_K: Tensor) -> None:
            part = actions.select(row_K)
            width = part.mask_BN.shape[1]
            scores = self._policy.score(part, self.temperature)
            add_gap(figures, part, scores.logprob_BN)
            old_BN[row_K, :width] = scores.logprob_BN.to(old_BN.dtype)
            value_KN, last_K = self._critic.judge(part, scores)
            value_BN[row_K, :width] = torch.where(part.mask_BN, value_KN, 0.0).double()
            last_B[row_K] = last_K.double()
            if self._reference is not None:
                reference_KN = self._reference.score(part, self.temperature).logprob_BN
                kl_KN = kl_divergence(scores.logprob_BN, reference_KN, "k1")
                kl_BN[row_K, :width] = kl_KN.double()
                figures.mean([("kl", float(kl_KN[part.mask_BN].mean()))], float(part.mask_BN.sum()))

        self._micro.run(torch.arange(actions.rows, device=value_BN.device), actions.length_B, work, figures)
        collectives.all_reduce(
            [value_BN, last_B, kl_BN, old_BN]
        )  # each has computed its rows and left 0 for the others
        reward_BN = actions.reward_BN - self._kl.coefficient * kl_BN
        if self._reference is not None:
            figures.mean([("kl_coefficient", self._kl.coefficient)], 1.0)
            self._kl.follow(float(torch.where(actions.mask_BN, kl_BN, 0.0).sum(1).mean()), actions.rows)
        bootstrap_B = torch.where(truncated_B, last_B, 0.0)
        rates = (self.gamma, self.gae_lambda, self.time_unit)
        discount_BN, decay_BN = rates_between(actions.mask_BN, actions.turn_BN, *rates)
        advantage_BN = generalised_advantages(reward_BN, value_BN, bootstrap_B, actions.mask_BN, decay_BN, discount_BN)
        if self.old_logprobs == "trainer":
            actions = dataclasses.replace(actions, old_logprob_BN=old_BN)
        return _Judged(
            actions=actions,
            value_BN=value_BN,
            advantage_BN=advantage_BN,
            target_BN=value_BN + advantage_BN,
        )

    def _accumulate(
        self,
        judged: _Judged,
        advantage_BN: Tensor,
        weight_BN: Tensor,
        figures: Figures,
        value_only: bool,
        row_K: Tensor,
    ) -> float:
        """Add the gradient of some rows; their share of the minibatch's approximate KL from the sampling policy."""
        part = judged.actions.select(row_K)
        width = part.mask_BN.shape[1]
        advantage_KN, weight_KN = advantage_BN[row_K, :width], weight_BN[row_K, :width]
        old_value_KN, target_KN = judged.value_BN[row_K, :width], judged.target_BN[row_K, :width]
        with torch.set_grad_enabled(not value_only):
            scores = self._policy.score(part, self.temperature)
        logprob_KN = scores.logprob_BN
        kind = logprob_KN.dtype
        log_ratio_KN = torch.where(part.mask_BN, logprob_KN - part.old_logprob_BN.to(kind), 0.0)
        ratio_KN = log_ratio_KN.exp()
        policy_KN = clipped_surrogate(ratio_KN, advantage_KN.to(kind), self.clip_low, self.clip_high, self.dual_clip)
        value_KN = self._critic.judge(part, scores)[0].to(kind)
        critic_KN = value_loss(value_KN, old_value_KN.to(kind), target_KN.to(kind), self.value_clip)
        loss_KN = self.value_coefficient * critic_KN
        if not value_only:
            loss_KN = policy_KN + loss_KN
            if self.entropy_coefficient > 0:
                loss_KN = loss_KN - self.entropy_coefficient * scores.entropy_BN
        weight_KN = weight_KN.to(kind)
        (loss_KN * weight_KN).sum().backward()
        with torch.no_grad():
            mask = part.mask_BN
            approx_kl_KN = kl_divergence(torch.zeros_like(log_ratio_KN), log_ratio_KN, "k3")
            outside = (ratio_KN < 1 - self.clip_low) | (ratio_KN > 1 + self.clip_high)
            figures.mean(
                [
                    ("approx_kl", float(approx_kl_KN[mask].mean())),
                    ("clip_ratio/region_mean", float(outside[mask].double().mean())),
                    ("entropy", float(scores.entropy_BN[mask].nanmean())),
                    ("policy_loss", float(policy_KN[mask].mean())),
                    ("value_loss", float(critic_KN[mask].mean())),
                ],
                float(mask.sum()),
            )
            return float((approx_kl_KN * weight_KN).sum())


def _explained_variance(value: Tensor, target: Tensor) -> float:
    """1 - Var[target - value] / Var[target]: 1 is a perfect critic, 0 one that knows only the mean; NaN without spread."""
    spread = float(target.var(unbiased=False))
    return float("nan") if spread == 0 else 1.0 - float((target - value).var(unbiased=False)) / spread

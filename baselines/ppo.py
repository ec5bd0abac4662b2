"""PPO on tokens: a clipped policy gradient with a learned value of every state.

Paper: Schulman et al. 2017, "Proximal policy optimization algorithms", arXiv 1707.06347; for language models Ziegler et
al. 2019, arXiv 1909.08593, and Huang et al. 2024, "The N+ implementation details of RLHF with PPO", arXiv 2403.17031.

Each of N episodes gets its own instance. An action is a token that the policy wrote; what the environment wrote stands
between two actions and is neither trained on nor counted in time. With old values V and advantages A from generalised
advantage estimation (baselines/advantages.py), targets V + A, several epochs of minibatches minimise

    mean_t [ L_clip(rho_t, A_t) + value_coefficient L_value(V_t) - entropy_coefficient H_t ]

    r_t = the environment's reward at t - kl_coefficient * k1 estimate of KL_t(pi || reference)

Deviations: the value head starts at zero and shares the language model's trunk, which halves the memory of a separate
critic; an early stop on the approximate KL (k3 of old from new) is checked before each optimizer step. Episodes in which
the policy wrote nothing, or whose rewards are not finite, are left out.
"""

import copy
import dataclasses
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from baselines.actions import Actions, actions_of
from baselines.advantages import generalised_advantages, whitened
from baselines.inner_loop import Figures, micro_batches, minibatches
from baselines.losses import clipped_surrogate, kl_divergence, token_weights, value_loss
from baselines.policy import Scorer
from baselines.rollout_metrics import add_gap, gap_notes, rollout_metrics, trained_on_metrics
from baselines.stepper import Stepper
from evotext import processes
from evotext.instances import train_instances
from evotext.models.language_model import LanguageModel
from evotext.models.value_head import ValueHead
from evotext.optimizer_factory import OptimizerFactory, check_optimizer
from evotext.types import Cost, RolloutPlan, Sampling, Trajectories, UpdateReport
from evotext.validation import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, checked


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
        detach_value: bool,
        entropy_coefficient: NonNegativeFloat,
        kl_coefficient: NonNegativeFloat,
        target_kl: PositiveFloat | None,
        max_grad_norm: PositiveFloat | None,
        optimizer: OptimizerFactory,
        gap_tolerance: PositiveFloat,
        learning_rate_schedule: Callable[[int], float],
    ) -> None:
        check_optimizer(optimizer)
        if minibatches > episodes:
            raise ValueError(f"algorithm.minibatches: expected at most episodes = {episodes}, got {minibatches}")
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

    def start(self, model: LanguageModel, seed: int) -> None:
        """Build the value head and the optimizer, and with a KL penalty keep a frozen copy of the starting weights."""
        self._model, self._seed, self._tokens_seen = model, seed, 0
        self._policy, self._warned = Scorer(model.network), False
        size = model.network.config.get_text_config().hidden_size
        self._value = ValueHead(size, detach=self._detach_value, device=model.device)
        groups: list[dict[str, Any]] = [
            {"params": model.trained_parameters},
            {"params": list(self._value.parameters()), "lr": self._value_learning_rate},
        ]
        self._stepper = Stepper(
            self._optimizer, groups, max_grad_norm=self._max_grad_norm, schedule=self._rate_schedule
        )
        self._reference: Scorer | None = None
        if self.kl_coefficient > 0:
            self._reference = Scorer(copy.deepcopy(model.network).requires_grad_(False))

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
        figures, updates, dropped, stopped = Figures(), 0, 0, False
        actions = actions_of(batch, self._model.device)
        kept_K = (actions.mask_BN.any(1) & actions.reward_BN.isfinite().all(1)).nonzero()[:, 0]
        if len(kept_K):
            judged = self._judge(actions.select(kept_K), batch.truncated_B.to(kept_K.device)[kept_K], figures)
            updates, dropped, stopped = self._improve(judged, batch.plan.generation, figures)
            mask_BN = judged.actions.mask_BN
            metrics["explained_variance"] = _explained_variance(judged.value_BN[mask_BN], judged.target_BN[mask_BN])
            metrics["value_mean"] = float(judged.value_BN[mask_BN].mean())
        self._tokens_seen += int(batch.length_B.sum())
        metrics |= figures.result() | {"stopped_early": float(stopped)}
        metrics |= trained_on_metrics(updates, dropped, self._tokens_seen, self._stepper.learning_rate.now)
        cost = Cost(update_seconds=time.perf_counter() - begin, updates=max(1, updates))
        cost += self._policy.spent() + (self._reference.spent() if self._reference is not None else Cost())
        notes = () if self._warned else gap_notes(metrics, self.gap_tolerance)
        self._warned |= bool(notes)
        return UpdateReport(metrics=metrics, cost=cost, notes=notes)

    def _improve(self, judged: _Judged, generation: int, figures: Figures) -> tuple[int, int, bool]:
        """The epochs: steps taken, steps dropped for a gradient that is not finite, whether stopped early."""
        actions, value_BN, target_BN = judged.actions, judged.value_BN, judged.target_BN
        used_BN = whitened(judged.advantage_BN, actions.mask_BN) if self.whiten else judged.advantage_BN
        updates, dropped = 0, 0
        for epoch in range(self.epochs):
            parts = minibatches(actions.rows, self.minibatches, seed=self._seed, generation=generation, epoch=epoch)
            for part_K in parts:
                if not len(part_K):
                    continue  # fewer episodes than minibatches were left
                part_K = part_K.to(value_BN.device)
                inside_BN = torch.zeros_like(actions.mask_BN)
                inside_BN[part_K] = actions.mask_BN[part_K]
                weight_BN = token_weights(inside_BN, "token", rows=len(part_K), max_tokens=1)
                moved = 0.0
                for row_K in micro_batches(part_K, actions.length_B, self.micro_rows):
                    part = actions.select(row_K)
                    width = part.mask_BN.shape[1]
                    columns = (used_BN[row_K, :width], value_BN[row_K, :width], target_BN[row_K, :width])
                    moved += self._accumulate(part, *columns, weight_BN[row_K, :width], figures)
                if self.target_kl is not None and processes.total(moved) > self.target_kl:
                    self._stepper.forget()
                    return updates, dropped, True
                norm = self._stepper.step()
                if norm is None:
                    dropped += 1
                else:
                    updates += 1
                    figures.mean([("grad_norm", norm)], 1.0)
        return updates, dropped, False

    def state_dict(self) -> dict[str, object]:
        """The value head, the optimizer's state, the count of tokens and the reference's weights, if there is one."""
        reference = None if self._reference is None else self._reference.network.state_dict()
        return {
            "value": self._value.state_dict(),
            "steps": self._stepper.state_dict(),
            "reference": reference,
            "tokens_seen": self._tokens_seen,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Undo `state_dict`."""
        self._value.load_state_dict(state["value"])  # type: ignore[arg-type]
        self._stepper.load_state_dict(state["steps"])  # type: ignore[arg-type]
        if self._reference is not None:
            self._reference.network.load_state_dict(state["reference"])
        self._tokens_seen = int(state["tokens_seen"])  # type: ignore[call-overload]

    @torch.no_grad()
    def _judge(self, actions: Actions, truncated_B: Tensor, figures: Figures) -> _Judged:
        """Values, advantages and targets before anything changes; with `old_logprobs: trainer` also log-probabilities."""
        value_BN = torch.zeros(actions.mask_BN.shape, dtype=torch.float64, device=actions.mask_BN.device)
        last_B = torch.zeros(actions.rows, dtype=torch.float64, device=value_BN.device)
        penalty_BN, old_BN = torch.zeros_like(actions.reward_BN), torch.zeros_like(actions.old_logprob_BN)
        everything = torch.arange(actions.rows, device=value_BN.device)
        for row_K in micro_batches(everything, actions.length_B, self.micro_rows):
            part = actions.select(row_K)
            width = part.mask_BN.shape[1]
            scores = self._policy.score(part, self.temperature)
            add_gap(figures, part, scores.logprob_BN)
            old_BN[row_K, :width] = scores.logprob_BN.to(old_BN.dtype)
            value_BN[row_K, :width] = torch.where(part.mask_BN, self._value(scores.hidden_BND), 0.0).double()
            last_B[row_K] = self._value(scores.final_hidden_BD).double()
            if self._reference is not None:
                reference_KN = self._reference.score(part, self.temperature).logprob_BN
                kl_KN = kl_divergence(scores.logprob_BN, reference_KN, "k1")
                penalty_BN[row_K, :width] = self.kl_coefficient * kl_KN.double()
                figures.mean([("kl", float(kl_KN[part.mask_BN].mean()))], float(part.mask_BN.sum()))
        processes.add_up([value_BN, last_B, penalty_BN, old_BN])  # each has computed its rows and left 0 for the others
        reward_BN = actions.reward_BN - penalty_BN
        bootstrap_B = torch.where(truncated_B, last_B, 0.0)
        discount_BN, decay_BN = self._rates(actions)
        advantage_BN = generalised_advantages(reward_BN, value_BN, bootstrap_B, actions.mask_BN, decay_BN, discount_BN)
        if self.old_logprobs == "trainer":
            actions = dataclasses.replace(actions, old_logprob_BN=old_BN)
        return _Judged(
            actions=actions,
            value_BN=value_BN,
            advantage_BN=advantage_BN,
            target_BN=value_BN + advantage_BN,
        )

    def _rates(self, actions: Actions) -> tuple[Tensor, Tensor]:
        """Gamma and lambda from each action to the next: everywhere, or only from the last action of a turn."""
        discount_BN = torch.full_like(actions.reward_BN, self.gamma)
        decay_BN = torch.full_like(actions.reward_BN, self.gae_lambda)
        if self.time_unit == "turn":
            same_turn_BN = torch.zeros_like(actions.mask_BN)
            same_turn_BN[:, :-1] = (actions.turn_BN[:, 1:] == actions.turn_BN[:, :-1]) & actions.mask_BN[:, 1:]
            discount_BN[same_turn_BN] = 1.0
            decay_BN[same_turn_BN] = 1.0
        return discount_BN, decay_BN

    def _accumulate(
        self,
        part: Actions,
        advantage_KN: Tensor,
        old_value_KN: Tensor,
        target_KN: Tensor,
        weight_KN: Tensor,
        figures: Figures,
    ) -> float:
        """Add the gradient of some rows; their share of the minibatch's approximate KL from the sampling policy."""
        scores = self._policy.score(part, self.temperature)
        logprob_KN = scores.logprob_BN
        kind = logprob_KN.dtype
        log_ratio_KN = torch.where(part.mask_BN, logprob_KN - part.old_logprob_BN.to(kind), 0.0)
        ratio_KN = log_ratio_KN.exp()
        policy_KN = clipped_surrogate(ratio_KN, advantage_KN.to(kind), self.clip_low, self.clip_high, self.dual_clip)
        value_KN = self._value(scores.hidden_BND).to(kind)
        critic_KN = value_loss(value_KN, old_value_KN.to(kind), target_KN.to(kind), self.value_clip)
        loss_KN = policy_KN + self.value_coefficient * critic_KN - self.entropy_coefficient * scores.entropy_BN
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
                    ("entropy", float(scores.entropy_BN[mask].mean())),
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

"""PPO on tokens: a clipped policy gradient with a learned value of every state.

Paper: Schulman et al. 2017, "Proximal policy optimization algorithms", arXiv 1707.06347; for language models Ziegler et
al. 2019, arXiv 1909.08593, and Huang et al. 2024, "The N+ implementation details of RLHF with PPO", arXiv 2403.17031.

Each of N episodes gets its own instance. An action is a token that the policy wrote; what the environment wrote stands
between two actions and is neither trained on nor counted in time. With old values V and advantages A from generalised
advantage estimation (baselines/advantages.py), targets V + A, several epochs of minibatches minimise

    mean_t [ L_clip(rho_t, A_t) + value_coefficient L_value(V_t) - entropy_coefficient H_t ]

    r_t = the environment's reward at t - kl_coefficient * k1 estimate of KL_t(pi || reference)

Deviations: the value head starts at zero and shares the language model's trunk, which halves the memory of a separate
critic; an early stop on the approximate KL (k3 of old from new) is checked before each optimizer step.
"""

import copy
import time
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from baselines.actions import Actions, actions_of
from baselines.advantages import generalised_advantages, whitened
from baselines.inner_loop import Mean, OptimizerFactory, Stepper, check_optimizer, micro_batches, minibatches
from baselines.losses import clipped_surrogate, kl_divergence, token_weights, value_loss
from baselines.policy import score
from baselines.rollout_metrics import rollout_metrics
from evotext.instances import train_instances
from evotext.models.language_model import LanguageModel
from evotext.models.value_head import ValueHead
from evotext.types import Cost, RolloutPlan, Sampling, Trajectories, UpdateReport
from evotext.validation import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, checked


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
        dual_clip: PositiveFloat | None,
        value_clip: PositiveFloat | None,
        value_coefficient: NonNegativeFloat,
        value_learning_rate: PositiveFloat,
        detach_value: bool,
        entropy_coefficient: NonNegativeFloat,
        kl_coefficient: NonNegativeFloat,
        target_kl: PositiveFloat | None,
        max_grad_norm: PositiveFloat | None,
        optimizer: OptimizerFactory,
    ) -> None:
        check_optimizer(optimizer)
        if minibatches > episodes:
            raise ValueError(f"algorithm.minibatches: expected at most episodes = {episodes}, got {minibatches}")
        self.episodes, self.temperature = episodes, temperature
        self.epochs, self.minibatches, self.micro_rows = epochs, minibatches, micro_rows
        self.gamma, self.gae_lambda, self.time_unit, self.whiten = gamma, gae_lambda, time_unit, whiten
        self.clip_low, self.clip_high, self.dual_clip = clip_low, clip_high, dual_clip
        self.value_clip, self.value_coefficient = value_clip, value_coefficient
        self.entropy_coefficient, self.kl_coefficient, self.target_kl = entropy_coefficient, kl_coefficient, target_kl
        self._value_learning_rate, self._detach_value = value_learning_rate, detach_value
        self._max_grad_norm, self._optimizer = max_grad_norm, optimizer

    def start(self, model: LanguageModel, seed: int) -> None:
        """Build the value head and the optimizer, and with a KL penalty keep a frozen copy of the starting weights."""
        self._model, self._seed = model, seed
        size = model.network.config.get_text_config().hidden_size
        self._value = ValueHead(size, detach=self._detach_value, device=model.device)
        groups: list[dict[str, Any]] = [
            {"params": list(model.network.parameters())},
            {"params": list(self._value.parameters()), "lr": self._value_learning_rate},
        ]
        self._stepper = Stepper(self._optimizer, groups, max_grad_norm=self._max_grad_norm)
        self._reference: PreTrainedModel | None = None
        if self.kl_coefficient > 0:
            self._reference = copy.deepcopy(model.network).requires_grad_(False)

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
        actions = actions_of(batch, self._model.device)
        value_BN, advantage_BN, target_BN, kl, passes = self._judge(batch, actions)
        flops = 2.0 * passes * self._model.matmul_parameter_count * actions.tokens_BT.numel()
        used_BN = whitened(advantage_BN, actions.mask_BN) if self.whiten else advantage_BN
        figures, updates, stopped = Mean(), 0, False
        for epoch in range(self.epochs):
            parts = minibatches(
                actions.rows, self.minibatches, seed=self._seed, generation=batch.plan.generation, epoch=epoch
            )
            for part_K in parts:
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
                    flops += 6.0 * self._model.matmul_parameter_count * part.tokens_BT.numel()
                if self.target_kl is not None and moved > self.target_kl:
                    self._stepper.optimizer.zero_grad(set_to_none=True)
                    stopped = True
                    break
                figures.add([("grad_norm", self._stepper.step())], 1.0)
                updates += 1
            if stopped:
                break
        mask = actions.mask_BN
        metrics = rollout_metrics(batch) | figures.result() | kl
        metrics |= {
            "explained_variance": _explained_variance(value_BN[mask], target_BN[mask]),
            "value_mean": float(value_BN[mask].mean()),
            "learning_rate": self._stepper.learning_rate,
            "stopped_early": float(stopped),
        }
        cost = Cost(update_seconds=time.perf_counter() - begin, updates=max(1, updates), flops=flops)
        return UpdateReport(metrics=metrics, cost=cost)

    def state_dict(self) -> dict[str, object]:
        """The value head, the optimizer's state and the reference's weights, if there is one."""
        reference = None if self._reference is None else self._reference.state_dict()
        optimizer = self._stepper.optimizer.state_dict()
        return {"value": self._value.state_dict(), "optimizer": optimizer, "reference": reference}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Undo `state_dict`."""
        self._value.load_state_dict(state["value"])  # type: ignore[arg-type]
        self._stepper.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        if self._reference is not None:
            self._reference.load_state_dict(state["reference"])

    @torch.no_grad()
    def _judge(self, batch: Trajectories, actions: Actions) -> tuple[Tensor, Tensor, Tensor, dict[str, float], int]:
        """Old values, advantages and value targets (B, N) before anything changes, the KL figures, forward passes."""
        value_BN = torch.zeros(actions.mask_BN.shape, dtype=torch.float64, device=actions.mask_BN.device)
        last_B = torch.zeros(actions.rows, dtype=torch.float64, device=value_BN.device)
        reward_BN = actions.reward_BN.clone()
        kl_sum = 0.0
        everything = torch.arange(actions.rows, device=value_BN.device)
        for row_K in micro_batches(everything, actions.length_B, self.micro_rows):
            part = actions.select(row_K)
            width = part.mask_BN.shape[1]
            scores = score(self._model.network, part, self.temperature)
            value_BN[row_K, :width] = torch.where(part.mask_BN, self._value(scores.hidden_BND), 0.0).double()
            last_B[row_K] = self._value(scores.final_hidden_BD).double()
            if self._reference is not None:
                reference_KN = score(self._reference, part, self.temperature).logprob_BN
                kl_KN = kl_divergence(scores.logprob_BN, reference_KN, "k1")
                reward_BN[row_K, :width] -= self.kl_coefficient * kl_KN.double()
                kl_sum += float(kl_KN.sum())
        bootstrap_B = torch.where(batch.truncated_B.to(last_B.device), last_B, 0.0)
        discount_BN, decay_BN = self._rates(actions)
        advantage_BN = generalised_advantages(reward_BN, value_BN, bootstrap_B, actions.mask_BN, decay_BN, discount_BN)
        kl = {} if self._reference is None else {"kl": kl_sum / float(actions.mask_BN.sum())}
        return value_BN, advantage_BN, value_BN + advantage_BN, kl, 1 if self._reference is None else 2

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
        figures: Mean,
    ) -> float:
        """Add the gradient of some rows; their share of the minibatch's approximate KL from the sampling policy."""
        scores = score(self._model.network, part, self.temperature)
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
            figures.add(
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

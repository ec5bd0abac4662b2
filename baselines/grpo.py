"""GRPO: group-relative policy optimisation.

Paper: Shao et al. 2024, "DeepSeekMath", arXiv 2402.03300. Options from DAPO (arXiv 2503.14476), Dr. GRPO (2503.20783),
GSPO (2507.18071) and RLOO (2402.14740).

For each of Q instances the policy answers G times. With A_i the group-relative advantage of answer i, rho its tokens'
probability ratios to the sampling policy, and w the weights of the loss normalisation, one step minimises

    sum_i sum_t w_it [ L_clip(rho_it, A_i) + beta KL_it(pi || reference) ]

Deviations: with one step a batch the ratio is exactly 1 and its gradient that of the log-probability, so the sampler's
rounding does not enter; groups without signal are not run through the network when beta is 0, where their gradient is
zero (they still count in the normalisation).
"""

import copy
import time
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from baselines.actions import Actions, actions_of
from baselines.advantages import Baseline, group_advantages
from baselines.inner_loop import Mean, OptimizerFactory, Stepper, check_optimizer, micro_batches, minibatches
from baselines.losses import KLEstimator, Normalisation, clipped_surrogate, kl_divergence, token_weights
from baselines.policy import score
from baselines.rollout_metrics import group_metrics, rollout_metrics
from evotext.instances import train_instances
from evotext.models.language_model import LanguageModel
from evotext.types import Cost, RolloutPlan, Sampling, Trajectories, UpdateReport
from evotext.validation import NonNegativeFloat, PositiveFloat, PositiveInt, checked


class GRPO:
    """Hyperparameters: see conf/algorithm/grpo.yaml, where each stands with its unit and paper."""

    @checked
    def __init__(
        self,
        *,
        prompts: PositiveInt,
        group_size: Annotated[int, Field(ge=2)],
        temperature: PositiveFloat,
        epochs: PositiveInt,
        minibatches: PositiveInt,
        micro_rows: PositiveInt,
        baseline: Baseline,
        normalisation: Normalisation,
        max_tokens: PositiveInt,
        ratio: Literal["token", "sequence"],
        clip_low: NonNegativeFloat,
        clip_high: NonNegativeFloat,
        dual_clip: Annotated[float, Field(gt=1)] | None,
        kl_coefficient: NonNegativeFloat,
        kl_estimator: KLEstimator,
        mask_overlong: bool,
        max_grad_norm: PositiveFloat | None,
        optimizer: OptimizerFactory,
    ) -> None:
        check_optimizer(optimizer)
        if minibatches > prompts * group_size:
            raise ValueError(
                f"algorithm.minibatches: expected at most prompts x group_size = {prompts * group_size}, got {minibatches}"
            )
        self.prompts, self.group_size, self.temperature = prompts, group_size, temperature
        self.epochs, self.minibatches, self.micro_rows = epochs, minibatches, micro_rows
        self.baseline, self.normalisation, self.max_tokens, self.ratio = baseline, normalisation, max_tokens, ratio
        self.clip_low, self.clip_high, self.dual_clip = clip_low, clip_high, dual_clip
        self.kl_coefficient, self.kl_estimator, self.mask_overlong = kl_coefficient, kl_estimator, mask_overlong
        self._max_grad_norm, self._optimizer = max_grad_norm, optimizer

    def start(self, model: LanguageModel, seed: int) -> None:
        """Build the optimizer, and with a KL penalty keep a frozen copy of the starting weights."""
        self._model, self._seed = model, seed
        groups = [{"params": list(model.network.parameters())}]
        self._stepper = Stepper(self._optimizer, groups, max_grad_norm=self._max_grad_norm)
        self._reference: PreTrainedModel | None = None
        if self.kl_coefficient > 0:
            self._reference = copy.deepcopy(model.network).requires_grad_(False)

    def ask(self, generation: int) -> RolloutPlan:
        """Q fresh instances, each answered by G rows."""
        instances = train_instances(self._seed, generation, self.prompts)
        return RolloutPlan(
            seed=self._seed,
            generation=generation,
            instances=tuple(instance for instance in instances for _ in range(self.group_size)),
            groups=tuple(group for group in range(self.prompts) for _ in range(self.group_size)),
            sampling=Sampling(temperature=self.temperature),
            logprobs=True,
        )

    def tell(self, batch: Trajectories) -> UpdateReport:
        """One or more optimizer steps on the batch; none if no group carries a signal."""
        begin = time.perf_counter()
        actions = actions_of(batch, self._model.device)
        groups = torch.tensor(batch.plan.groups)
        advantage_B = group_advantages(batch.return_B, groups, self.baseline).to(self._model.device)
        counts_B = ~batch.overlong_B.to(advantage_B.device) if self.mask_overlong else advantage_B == advantage_B
        learns_B = counts_B & ((advantage_B != 0) | (self.kl_coefficient > 0)) & actions.mask_BN.any(1)
        figures, flops, updates = Mean(), 0.0, 0
        for epoch in range(self.epochs):
            parts = minibatches(
                actions.rows, self.minibatches, seed=self._seed, generation=batch.plan.generation, epoch=epoch
            )
            for part_K in parts:
                part_K = part_K.to(advantage_B.device)
                weight_BN = self._weights(actions, part_K, counts_B)
                if not bool(learns_B[part_K].any()):
                    continue
                for row_K in micro_batches(part_K[learns_B[part_K]], actions.length_B, self.micro_rows):
                    flops += self._accumulate(actions.select(row_K), advantage_B[row_K], weight_BN[row_K], figures)
                figures.add([("grad_norm", self._stepper.step())], 1.0)
                updates += 1
        metrics = rollout_metrics(batch) | group_metrics(batch) | figures.result()
        metrics |= {"learning_rate": self._stepper.learning_rate, "skipped": float(updates == 0)}
        cost = Cost(update_seconds=time.perf_counter() - begin, updates=max(1, updates), flops=flops)
        return UpdateReport(metrics=metrics, cost=cost)

    def state_dict(self) -> dict[str, object]:
        """The optimizer's state and the reference's weights, if there is one."""
        reference = None if self._reference is None else self._reference.state_dict()
        return {"optimizer": self._stepper.optimizer.state_dict(), "reference": reference}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Undo `state_dict`."""
        self._stepper.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        if self._reference is not None:
            self._reference.load_state_dict(state["reference"])

    def _weights(self, actions: Actions, part_K: Tensor, counts_B: Tensor) -> Tensor:
        """(B, N): what each action counts in the loss of this minibatch; 0 outside it."""
        inside_B = torch.zeros_like(counts_B)
        inside_B[part_K] = True
        mask_BN = actions.mask_BN & (inside_B & counts_B)[:, None]
        return token_weights(mask_BN, self.normalisation, rows=len(part_K), max_tokens=self.max_tokens)

    def _accumulate(self, part: Actions, advantage_K: Tensor, weight_KN: Tensor, figures: Mean) -> float:
        """Add the gradient of some rows; the floating-point operations that it took."""
        weight_KN = weight_KN[:, : part.mask_BN.shape[1]]
        scores = score(self._model.network, part, self.temperature)
        logprob_KN = scores.logprob_BN
        on_policy = self.epochs == 1 and self.minibatches == 1
        old_KN = logprob_KN.detach() if on_policy else part.old_logprob_BN.to(logprob_KN.dtype)
        log_ratio_KN = torch.where(part.mask_BN, logprob_KN - old_KN, 0.0)
        if self.ratio == "sequence":
            log_ratio_KN = log_ratio_KN.sum(1, keepdim=True) / part.mask_BN.sum(1, keepdim=True)
        ratio_KN = log_ratio_KN.exp().expand_as(logprob_KN)
        advantage_KN = advantage_K[:, None].to(logprob_KN.dtype).expand_as(logprob_KN)
        loss_KN = clipped_surrogate(ratio_KN, advantage_KN, self.clip_low, self.clip_high, self.dual_clip)
        positions, operations = part.tokens_BT.numel(), 6.0
        count = float(part.mask_BN.sum())
        if self._reference is not None:
            with torch.no_grad():
                reference_KN = score(self._reference, part, self.temperature).logprob_BN
            kl_KN = kl_divergence(logprob_KN, reference_KN, self.kl_estimator)
            loss_KN = loss_KN + self.kl_coefficient * kl_KN
            figures.add([("kl", float(kl_KN.detach()[part.mask_BN].mean()))], count)
            operations = 8.0
        (loss_KN * weight_KN.to(loss_KN.dtype)).sum().backward()
        figures.add(self._figures(part, scores.entropy_BN, logprob_KN, ratio_KN, advantage_KN), count)
        return operations * self._model.matmul_parameter_count * positions

    @torch.no_grad()
    def _figures(
        self, part: Actions, entropy_KN: Tensor, logprob_KN: Tensor, ratio_KN: Tensor, advantage_KN: Tensor
    ) -> list[tuple[str, float]]:
        mask = part.mask_BN
        gap = (logprob_KN - part.old_logprob_BN)[mask].abs()
        ratio, advantage = ratio_KN[mask], advantage_KN[mask]
        low = (ratio < 1 - self.clip_low) & (advantage < 0)
        high = (ratio > 1 + self.clip_high) & (advantage > 0)
        return [
            ("entropy", float(entropy_KN[mask].mean())),
            ("sampling/logp_difference", float(gap.mean())),
            ("clip_ratio/low_mean", float(low.double().mean())),
            ("clip_ratio/high_mean", float(high.double().mean())),
            ("clip_ratio/region_mean", float((low | high).double().mean())),
        ]

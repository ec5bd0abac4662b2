"""GRPO: group-relative policy optimisation.

Paper: Shao et al. 2024, "DeepSeekMath", arXiv 2402.03300. Options from DAPO (arXiv 2503.14476), Dr. GRPO (2503.20783),
GSPO (2507.18071) and RLOO (2402.14740).

For each of Q instances the policy answers G times. With A_i the group-relative advantage of answer i, rho its tokens'
probability ratios to the sampling policy, and w the weights of the loss normalisation, one step minimises

    sum_i sum_t w_it [ L_clip(rho_it, A_i) + beta KL_it(pi || reference) ]

Deviations: with one step a batch the ratio is exactly 1 and its gradient that of the log-probability, so the sampler's
rounding does not enter; groups without signal are not run through the network when beta is 0, where their gradient is
zero (they still count in the normalisation). A group with a return that is not finite is left out, but for the number of rows
that `sequence` and `constant` divide by. What an episode that a limit cut off would have earned is not known: such episodes
are neither compared nor trained on, unless `unfinished` counts what they had earned by then.
"""

import copy
import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from baselines.actions import Actions, actions_of
from baselines.advantages import Baseline, group_advantages
from baselines.gradient_checkpointing import check_checkpointable
from baselines.inner_loop import Figures, MicroBatches, minibatches
from baselines.losses import KLEstimator, Normalisation, clipped_surrogate, kl_divergence, token_weights
from baselines.overlong import longest_answers, overlong_penalty
from baselines.policy import Scorer
from baselines.refill import Refill
from baselines.rollout_metrics import add_gap, gap_notes, group_metrics, rollout_metrics, trained_on_metrics
from baselines.stepper import Stepper, Steps
from evotext.distributed import collectives
from evotext.keys.instances import train_instances
from evotext.models.language_model import LanguageModel
from evotext.optimization.factory import OptimizerFactory, check_optimizer
from evotext.types import Cost, RolloutPlan, Sampling, Trajectories, UpdateReport
from evotext.validation import NonNegativeFloat, PositiveFloat, PositiveInt, checked


class GRPO:
    """Hyperparameters: see conf/algorithm/grpo.yaml, where each stands with its unit and paper."""

    @checked
    def __init__(
        self,
        *,
        prompts: PositiveInt,
        group_size: PositiveInt,
        temperature: PositiveFloat,
        epochs: PositiveInt,
        minibatches: PositiveInt,
        micro_rows: PositiveInt,
        gradient_checkpointing: bool,
        baseline: Baseline,
        normalisation: Normalisation,
        max_tokens: PositiveInt,
        ratio: Literal["token", "sequence"],
        clip_low: NonNegativeFloat,
        clip_high: NonNegativeFloat,
        dual_clip: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None,
        old_logprobs: Literal["sampler", "trainer"],
        kl_coefficient: NonNegativeFloat,
        kl_estimator: KLEstimator,
        kl_in: Literal["loss", "reward"],
        mask_overlong: bool,
        unfinished: Literal["masked", "counted"],
        overlong_buffer: PositiveInt | None,
        overlong_factor: NonNegativeFloat,
        refill: PositiveInt | None,
        gap_tolerance: PositiveFloat,
        max_grad_norm: PositiveFloat | None,
        optimizer: OptimizerFactory,
        learning_rate_schedule: Callable[[int], float],
    ) -> None:
        check_optimizer(optimizer)
        if group_size < 2 and baseline != "batch":
            raise ValueError(
                f"algorithm.group_size: expected at least 2 with algorithm.baseline={baseline}, got {group_size}; "
                "a group of one has nothing to be compared with (baseline=batch compares with the whole batch)"
            )
        if overlong_buffer is not None and overlong_buffer > max_tokens:
            raise ValueError(
                f"algorithm.overlong_buffer: expected at most algorithm.max_tokens={max_tokens}, got {overlong_buffer}"
            )
        if minibatches > prompts * group_size:
            raise ValueError(
                f"algorithm.minibatches: expected at most prompts x group_size = {prompts * group_size}, got {minibatches}"
            )
        self.prompts, self.group_size, self.temperature = prompts, group_size, temperature
        self.epochs, self.minibatches, self.micro_rows = epochs, minibatches, micro_rows
        self.baseline, self.normalisation, self.max_tokens, self.ratio = baseline, normalisation, max_tokens, ratio
        self.clip_low, self.clip_high, self.dual_clip = clip_low, clip_high, dual_clip
        self.kl_coefficient, self.kl_estimator, self.mask_overlong = kl_coefficient, kl_estimator, mask_overlong
        self.old_logprobs, self.kl_in, self.refill = old_logprobs, kl_in, refill
        self.overlong_buffer, self.overlong_factor = overlong_buffer, overlong_factor
        self.gap_tolerance, self._rate_schedule = gap_tolerance, learning_rate_schedule
        self._max_grad_norm, self._optimizer = max_grad_norm, optimizer
        self.unfinished, self.gradient_checkpointing = unfinished, gradient_checkpointing

    def start(self, model: LanguageModel, seed: int) -> None:
        """Build the optimizer, and with a KL penalty keep a frozen copy of the starting weights."""
        if self.gradient_checkpointing:
            check_checkpointable(model.network)
        self._model, self._seed, self._tokens_seen = model, seed, 0
        self._policy, self._warned = Scorer(model.network, checkpoints=self.gradient_checkpointing), False
        self._micro = MicroBatches(self.micro_rows)
        self._gathered = Refill(self.prompts, self.refill) if self.refill else None
        groups = [{"params": model.trained_parameters}]
        self._stepper = Stepper(
            self._optimizer, groups, max_grad_norm=self._max_grad_norm, schedule=self._rate_schedule
        )
        self._reference: Scorer | None = None
        if self.kl_coefficient > 0:
            self._reference = Scorer(copy.deepcopy(model.network).requires_grad_(False))

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
        """One or more optimizer steps on the batch; none if no group carries a signal, or if more are to be gathered."""
        begin = time.perf_counter()
        self._stepper.learning_rate.follow(batch.plan.generation)
        figures, steps = Figures(), Steps()
        self._tokens_seen += int(batch.length_B.sum())
        metrics = rollout_metrics(batch) | group_metrics(batch)
        rows = self._rows_of(batch, figures)
        if self._gathered is not None:
            metrics["groups/held"] = float(self._gathered.gathered)
        if rows is not None:
            steps = self._improve(*rows, batch.plan.generation, figures)
        metrics |= figures.result()
        metrics |= trained_on_metrics(steps, self._tokens_seen, self._stepper.learning_rate.now)
        notes = () if self._warned else gap_notes(metrics, self.gap_tolerance)
        self._warned |= bool(notes)
        cost = Cost(update_seconds=time.perf_counter() - begin, updates=max(1, steps.taken))
        cost += self._policy.spent() + (self._reference.spent() if self._reference is not None else Cost())
        return UpdateReport(metrics=metrics, cost=cost, notes=notes + self._micro.notes())

    def _rows_of(self, batch: Trajectories, figures: Figures) -> tuple[Actions, Tensor, Tensor] | None:
        """Actions, advantages and which rows count in a step's loss; None while more groups are to be gathered."""
        device = self._model.device
        actions, groups = actions_of(batch, device), torch.tensor(batch.plan.groups)
        compared_B = torch.ones_like(batch.truncated_B) if self.unfinished == "counted" else ~batch.truncated_B
        advantage_B = self._advantages(self._shaped(batch, actions, figures), groups, compared_B).to(device)
        counts_B = advantage_B.isfinite() & compared_B.to(device)
        if self.mask_overlong:
            counts_B &= ~batch.overlong_B.to(device)
        if self._gathered is None:
            return actions, advantage_B, counts_B
        outcome_B = self._advantages(batch.return_B, groups, compared_B).to(device)  # of the task, not as shaped
        alive_B = outcome_B.isfinite() & (outcome_B != 0)
        alive = groups[alive_B.cpu()].unique()
        self._gathered.add(actions, advantage_B, counts_B, torch.isin(groups, alive).to(device), len(alive))
        return self._gathered.take()

    def _advantages(self, return_B: Tensor, groups: Tensor, compared_B: Tensor) -> Tensor:
        """Of the rows that are compared; 0 for the others."""
        advantage_B = torch.zeros(len(return_B), dtype=torch.float64)
        advantage_B[compared_B] = group_advantages(return_B[compared_B], groups[compared_B], self.baseline)
        return advantage_B

    def _shaped(self, batch: Trajectories, actions: Actions, figures: Figures) -> Tensor:
        """The returns that advantages are made of, (B,) on the CPU; what is reported stays the task's own."""
        return_B = batch.return_B
        if self.overlong_buffer is not None:
            length_B = longest_answers(batch.policy_mask_BT, batch.turn_BT)
            return_B = return_B + overlong_penalty(
                length_B, self.max_tokens, self.overlong_buffer, self.overlong_factor
            )
        if self.kl_in == "reward" and self._reference is not None:
            return_B = return_B - self.kl_coefficient * self._divergence(actions, figures)
        return return_B

    @torch.no_grad()
    def _divergence(self, actions: Actions, figures: Figures) -> Tensor:
        """(B,), on the CPU: k1 of each row as sampled, summed over its actions."""
        assert self._reference is not None
        sum_B = torch.zeros(actions.rows, dtype=torch.float64, device=actions.mask_BN.device)

        def work(row_K: Tensor) -> None:
            assert self._reference is not None
            part = actions.select(row_K)
            reference_KN = self._reference.score(part, self.temperature).logprob_BN
            kl_KN = torch.where(part.mask_BN, part.old_logprob_BN.double() - reference_KN.double(), 0.0)
            sum_B[row_K] = kl_KN.sum(1)
            figures.mean([("kl", float(kl_KN[part.mask_BN].mean()))], float(part.mask_BN.sum()))

        self._micro.run(actions.mask_BN.any(1).nonzero()[:, 0], actions.length_B, work, figures)
        collectives.all_reduce([sum_B])
        return sum_B.cpu()

    def _improve(
        self, actions: Actions, advantage_B: Tensor, counts_B: Tensor, generation: int, figures: Figures
    ) -> Steps:
        """The epochs."""
        steps = Steps()
        in_loss = self.kl_coefficient > 0 and self.kl_in == "loss"
        learns_B = counts_B & ((advantage_B != 0) | in_loss) & actions.mask_BN.any(1)
        actions = self._with_old_logprobs(actions, learns_B, figures)
        for epoch in range(self.epochs):
            parts = minibatches(actions.rows, self.minibatches, seed=self._seed, generation=generation, epoch=epoch)
            for part_K in parts:
                part_K = part_K.to(advantage_B.device)
                weight_BN = self._weights(actions, part_K, counts_B)
                if not bool(learns_B[part_K].any()):
                    continue
                untouched = steps.taken == 0  # no step taken: this is the policy that the sampler was
                work = partial(self._accumulate, actions, advantage_B, weight_BN, figures, untouched)
                row_K = part_K[learns_B[part_K]]
                self._micro.run(row_K, actions.length_B, work, figures, self._stepper.forget)
                steps.take(self._stepper, figures)
        return steps

    def state_dict(self) -> dict[str, object]:
        """The optimizer's state, the count of tokens, the reference's weights and groups held back, if there are any."""
        reference = None if self._reference is None else self._reference.network.state_dict()
        return {"steps": self._stepper.state_dict(), "reference": reference, "tokens_seen": self._tokens_seen} | (
            {"gathered": self._gathered.state_dict()} if self._gathered is not None else {}
        )

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Undo `state_dict`."""
        self._stepper.load_state_dict(state["steps"])  # type: ignore[arg-type]
        if self._reference is not None:
            self._reference.network.load_state_dict(state["reference"])
        self._tokens_seen = int(state["tokens_seen"])  # type: ignore[call-overload]
        if self._gathered is not None:
            self._gathered.load_state_dict(state["gathered"], self._model.device)  # type: ignore[arg-type]

    def _weights(self, actions: Actions, part_K: Tensor, counts_B: Tensor) -> Tensor:
        """(B, N): what each action counts in the loss of this minibatch; 0 outside it."""
        inside_B = torch.zeros_like(counts_B)
        inside_B[part_K] = True
        mask_BN = actions.mask_BN & (inside_B & counts_B)[:, None]
        return token_weights(mask_BN, self.normalisation, rows=len(part_K), max_tokens=self.max_tokens)

    @property
    def _one_step(self) -> bool:
        return self.epochs == 1 and self.minibatches == 1

    @torch.no_grad()
    def _with_old_logprobs(self, actions: Actions, learns_B: Tensor, figures: Figures) -> Actions:
        """The trainer's log-probabilities in place of the sampler's, if asked for."""
        row_K = learns_B.nonzero()[:, 0]
        if self.old_logprobs == "sampler" or self._one_step or not len(row_K):
            return actions
        old_BN = torch.zeros_like(actions.old_logprob_BN)

        def work(some_K: Tensor) -> None:
            part = actions.select(some_K)
            logprob_KN = self._policy.score(part, self.temperature).logprob_BN
            add_gap(figures, part, logprob_KN)
            old_BN[some_K, : part.mask_BN.shape[1]] = logprob_KN.to(old_BN.dtype)

        self._micro.run(row_K, actions.length_B, work, figures)
        collectives.all_reduce([old_BN])
        return dataclasses.replace(actions, old_logprob_BN=old_BN)

    def _accumulate(
        self,
        actions: Actions,
        advantage_B: Tensor,
        weight_BN: Tensor,
        figures: Figures,
        untouched: bool,
        row_K: Tensor,
    ) -> None:
        """Add the gradient of some rows."""
        part, advantage_K = actions.select(row_K), advantage_B[row_K]
        weight_KN = weight_BN[row_K, : part.mask_BN.shape[1]]
        scores = self._policy.score(part, self.temperature)
        logprob_KN = scores.logprob_BN
        if untouched and (self._one_step or self.old_logprobs == "sampler"):
            add_gap(figures, part, logprob_KN.detach())
        old_KN = logprob_KN.detach() if self._one_step else part.old_logprob_BN.to(logprob_KN.dtype)
        log_ratio_KN = torch.where(part.mask_BN, logprob_KN - old_KN, 0.0)
        if self.ratio == "sequence":
            log_ratio_KN = log_ratio_KN.sum(1, keepdim=True) / part.mask_BN.sum(1, keepdim=True)
        ratio_KN = log_ratio_KN.exp().expand_as(logprob_KN)
        advantage_KN = advantage_K[:, None].to(logprob_KN.dtype).expand_as(logprob_KN)
        loss_KN = clipped_surrogate(ratio_KN, advantage_KN, self.clip_low, self.clip_high, self.dual_clip)
        count = float(part.mask_BN.sum())
        if self._reference is not None and self.kl_in == "loss":
            with torch.no_grad():
                reference_KN = self._reference.score(part, self.temperature).logprob_BN
            kl_KN = kl_divergence(logprob_KN, reference_KN, self.kl_estimator)
            loss_KN = loss_KN + self.kl_coefficient * kl_KN
            figures.mean([("kl", float(kl_KN.detach()[part.mask_BN].mean()))], count)
        (loss_KN * weight_KN.to(loss_KN.dtype)).sum().backward()
        figures.mean(self._figures(part, scores.entropy_BN, ratio_KN, advantage_KN), count)

    @torch.no_grad()
    def _figures(
        self, part: Actions, entropy_KN: Tensor, ratio_KN: Tensor, advantage_KN: Tensor
    ) -> list[tuple[str, float]]:
        mask = part.mask_BN
        ratio, advantage = ratio_KN[mask], advantage_KN[mask]
        low = (ratio < 1 - self.clip_low) & (advantage < 0)
        high = (ratio > 1 + self.clip_high) & (advantage > 0)
        return [
            ("entropy", float(entropy_KN[mask].mean())),
            ("clip_ratio/low_mean", float(low.double().mean())),
            ("clip_ratio/high_mean", float(high.double().mean())),
            ("clip_ratio/region_mean", float((low | high).double().mean())),
        ]

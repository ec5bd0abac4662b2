"""Optimizer steps on rows whose advantages are known: their weights, what ratios are taken to, and the gradient.

Shapes: B rows, K rows of a part, N actions (a row's policy tokens, padded on the right).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from evotext.distributed import collectives
from evotext.policy.actions import Actions

from .inner_loop import Figures
from .losses import Normalisation, token_weights
from .objective import Objective, Rows, sampler_log_ratio
from .rollout_metrics import add_gap
from .stepper import Steps
from .training import Training, Work

OldLogprobs = Literal["sampler", "trainer"]


@dataclass(frozen=True, kw_only=True)
class PolicyUpdate:
    """Hyperparameters are those of conf/algorithm/grpo.yaml."""

    training: Training
    objective: Objective
    temperature: float
    normalisation: Normalisation
    max_tokens: int
    old_logprobs: OldLogprobs
    sampler_cap: float | None
    sampler_unit: Literal["token", "sequence"]

    @property
    def one_step(self) -> bool:
        """Whether a batch makes a single step, in which the policy is the one that sampled."""
        return self.training.settings.one_step

    @property
    def reads_sampler(self) -> bool:
        """Whether ratios are to the sampler's log-probabilities."""
        return self.old_logprobs == "sampler" and not self.one_step

    def __call__(self, rows: Rows, *, generation: int, penalty: float, figures: Figures) -> Steps:
        """Take all steps that the rows are good for. penalty: the coefficient of the KL in the loss, 0 without a reference."""
        counts_B = rows.counts_B
        learns_B = counts_B & ((rows.advantage_BN != 0).any(1) | (penalty > 0)) & rows.actions.mask_BN.any(1)
        epochs = self.training.parts(learns_B, generation)
        rows, correction_BN = self._with_old_logprobs(rows, [part_K[learns_B[part_K]] for part_K in epochs[0]], figures)

        def work(part_K: Tensor, steps: Steps) -> Work:
            weight_BN = self._weights(rows.actions, part_K, counts_B)
            if correction_BN is not None:
                weight_BN = weight_BN * correction_BN
            untouched = steps.taken == 0  # no step taken: this is the policy that the sampler was
            return partial(self._accumulate, rows, weight_BN, penalty, figures, untouched)

        return self.training.improve(epochs, learns_B, rows.actions.length_B, work, figures)

    def _weights(self, actions: Actions, part_K: Tensor, counts_B: Tensor) -> Tensor:
        """Return each action's weight in the loss of this minibatch, (B, N); 0 outside it."""
        inside_B = torch.zeros_like(counts_B)
        inside_B[part_K] = True
        mask_BN = actions.mask_BN & (inside_B & counts_B)[:, None]
        return token_weights(mask_BN, self.normalisation, rows=len(part_K), max_tokens=self.max_tokens)

    @torch.no_grad()
    def _with_old_logprobs(self, rows: Rows, parts: Sequence[Tensor], figures: Figures) -> tuple[Rows, Tensor | None]:
        """Return the rows with the trainer's log-probabilities if asked for, and the correction of the sampler's.

        parts: the rows of each step of the first epoch. They are computed together as they will be then: in a narrow type
        other rows beside them round differently, by more than the narrowest clips.
        """
        if self.old_logprobs == "sampler" or self.one_step:
            return rows, None
        actions, old_BN = rows.actions, torch.zeros_like(rows.actions.old_logprob_BN)

        def work(some_K: Tensor) -> None:
            part = actions.select(some_K)
            logprob_KN = self.training.policy.score(part, self.temperature).logprob_BN
            add_gap(figures, part, logprob_KN)
            old_BN[some_K, : part.mask_BN.shape[1]] = logprob_KN.to(old_BN.dtype)

        for row_K in parts:
            self.training.micro.run(row_K, actions.length_B, work, figures)
        collectives.all_reduce([old_BN])
        correction_BN = None
        if self.sampler_cap is not None and parts:
            row_K = torch.cat(list(parts))  # nothing was computed for other rows
            correction_BN = torch.ones_like(old_BN)
            correction_BN[row_K] = self._correction(actions.rows_at(row_K), old_BN[row_K], figures)
        return dataclasses.replace(rows, actions=dataclasses.replace(actions, old_logprob_BN=old_BN)), correction_BN

    def _correction(self, part: Actions, trainer_KN: Tensor, figures: Figures) -> Tensor:
        assert self.sampler_cap is not None
        ratio_KN = sampler_log_ratio(trainer_KN, part.old_logprob_BN, part.mask_BN, self.sampler_unit).exp()
        capped_KN = ratio_KN.clamp(max=self.sampler_cap)
        ratio, capped = ratio_KN[part.mask_BN], capped_KN[part.mask_BN]
        shares = {"importance_ratio": capped.mean(), "importance_capped": (ratio > self.sampler_cap).double().mean()}
        figures.mean([(f"sampling/{name}", float(share)) for name, share in shares.items()], float(len(ratio)))
        return capped_KN

    def _accumulate(
        self, rows: Rows, weight_BN: Tensor, penalty: float, figures: Figures, untouched: bool, row_K: Tensor
    ) -> None:
        """Add the gradient of some rows."""
        part, objective = rows.actions.select(row_K), self.objective
        scores = self.training.policy.score(part, self.temperature)
        logprob_KN, mask, count = scores.logprob_BN, part.mask_BN, float(part.mask_BN.sum())
        weight_KN = weight_BN[row_K, : mask.shape[1]].to(logprob_KN.dtype)
        advantage_KN = rows.advantage_BN[row_K, : mask.shape[1]].to(logprob_KN.dtype)
        old_KN = logprob_KN.detach() if self.one_step else part.old_logprob_BN.to(logprob_KN.dtype)
        if self.one_step and self.sampler_cap is not None:
            weight_KN = weight_KN * self._correction(part, old_KN, figures)
        log_ratio_KN = objective.log_ratio(part, logprob_KN, old_KN)
        if untouched and (self.one_step or self.reads_sampler):
            add_gap(figures, part, logprob_KN.detach())
        if untouched and self.reads_sampler:
            figures.mean([("sampling/ratio_gap", float(log_ratio_KN.detach()[mask].abs().mean()))], count)
        loss_KN = objective.loss(log_ratio_KN, logprob_KN, advantage_KN)
        if penalty > 0:
            reference = self.training.reference
            assert reference is not None
            with torch.no_grad():
                reference_KN = reference.score(part, self.temperature).logprob_BN
            kl_KN = objective.kl(part, logprob_KN, old_KN, reference_KN)
            loss_KN = loss_KN + penalty * kl_KN
            figures.mean([("kl", float(kl_KN.detach()[mask].mean()))], count)
        (loss_KN * weight_KN).sum().backward()
        entropy = float(scores.entropy_BN[mask].nanmean())
        figures.mean([("entropy", entropy), *objective.clipped(part, log_ratio_KN.detach(), advantage_KN)], count)

"""The objective of GRPO's family, for rows whose advantages are known.

With rho a token's ratio pi / pi_old, or the geometric mean over an answer's tokens (GSPO, arXiv 2507.18071), and sg the
stopped gradient, the loss of each action is

    clipped    -min(rho A, clip(rho) A)                 (PPO's, of `baselines.losses`)
    cispo      -sg(clip(rho)) A log pi                  (CISPO, MiniMax-M1, arXiv 2506.13585: no token loses its gradient)

    + beta sg(rho_token) KL(pi || reference), each action's estimate

A reference's KL is an expectation over the policy's own actions, and these were drawn from pi_old: the ratio corrects for it
and is 1 in a batch's first step. It carries no gradient, so that the estimators keep theirs: of k2 that of the KL (rho k3 with
the ratio's gradient, as DeepSeek-V3.2 has it, arXiv 2512.02556, has the same), of k3 the one that GRPO published.

Truncated importance sampling (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training")
weights an action's loss by min(pi_trainer / pi_sampler, cap), both under the weights that sampled, where the two differ.

Shapes: B rows, K rows of a part, N actions (a row's policy tokens, padded on the right).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from evotext.policy.actions import Actions

from .losses import KLEstimator, clipped_surrogate, kl_divergence

Surrogate = Literal["clipped", "cispo"]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a batch to learn from."""

    actions: Actions
    """The actions, with the log-probabilities in the ratios' denominator."""
    advantage_B: Tensor
    """The advantage of each row (float64)."""
    counts_B: Tensor
    """True for the rows that the loss is made of."""

    def at(self, row_K: Tensor) -> "Rows":
        """Return these rows."""
        return Rows(
            actions=self.actions.rows_at(row_K), advantage_B=self.advantage_B[row_K], counts_B=self.counts_B[row_K]
        )


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of each action; hyperparameters as in conf/algorithm/grpo.yaml."""

    surrogate: Surrogate
    ratio: Literal["token", "sequence"]
    clip_low: float
    clip_high: float
    dual_clip: float | None
    kl_estimator: KLEstimator

    def log_ratio(self, part: Actions, logprob_KN: Tensor, old_KN: Tensor) -> Tensor:
        """Return the log of the ratio that is clipped, (K, N); 0 outside of actions, unless one ratio covers an answer."""
        log_ratio_KN = torch.where(part.mask_BN, logprob_KN - old_KN, 0.0)
        if self.ratio == "token":
            return log_ratio_KN
        return (log_ratio_KN.sum(1, keepdim=True) / part.mask_BN.sum(1, keepdim=True)).expand_as(logprob_KN)

    def loss(self, log_ratio_KN: Tensor, logprob_KN: Tensor, advantage_KN: Tensor) -> Tensor:
        """Return the loss of each action without a KL, (K, N)."""
        if self.surrogate == "clipped":
            return clipped_surrogate(log_ratio_KN.exp(), advantage_KN, self.clip_low, self.clip_high, self.dual_clip)
        weight_KN = log_ratio_KN.detach().exp().clamp(1 - self.clip_low, 1 + self.clip_high)
        return -weight_KN * advantage_KN * logprob_KN

    def kl(self, part: Actions, logprob_KN: Tensor, old_KN: Tensor, reference_KN: Tensor) -> Tensor:
        """Return each action's estimate of the KL from the reference, before its coefficient: (K, N)."""
        ratio_KN = torch.where(part.mask_BN, logprob_KN.detach() - old_KN, 0.0).exp()
        return ratio_KN * kl_divergence(logprob_KN, reference_KN, self.kl_estimator)

    @torch.no_grad()
    def clipped(self, part: Actions, log_ratio_KN: Tensor, advantage_KN: Tensor) -> list[tuple[str, float]]:
        """Return the shares of the actions whose ratio was held at a bound."""
        ratio, advantage = log_ratio_KN[part.mask_BN].exp(), advantage_KN[part.mask_BN]
        low, high = (ratio < 1 - self.clip_low).cpu(), (ratio > 1 + self.clip_high).cpu()
        if self.surrogate == "clipped":  # the minimum lets go of the others
            low, high = low & (advantage < 0).cpu(), high & (advantage > 0).cpu()
        return [
            ("clip_ratio/low_mean", float(low.double().mean())),
            ("clip_ratio/high_mean", float(high.double().mean())),
            ("clip_ratio/region_mean", float((low | high).double().mean())),
        ]


def truncated_ratio(trainer: Tensor, sampler: Tensor, mask: Tensor, cap: float) -> Tensor:
    """Return min(pi_trainer / pi_sampler, cap) of actions under the same weights, from log-probabilities; 1 elsewhere."""
    return torch.where(mask, trainer - sampler, 0.0).exp().clamp(max=cap)

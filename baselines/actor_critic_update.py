"""Optimizer steps of an actor and its critic on judged actions, by one loss.

Shapes: B rows, K rows of a part, N actions (a row's policy tokens, padded on the right).
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from evotext.policy.actions import Actions

from .critic import Critic
from .inner_loop import Figures
from .losses import clipped_surrogate, kl_divergence, minibatch_weights, value_loss
from .stepper import Steps
from .training import Training, Work


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A batch as the policy and the critic saw it before the first step; float64, 0 where there is no action."""

    actions: Actions
    """The rows to learn from."""
    value_BN: Tensor
    """The critic's values, as returns."""
    target_BN: Tensor
    """The targets of the values, as returns."""
    advantage_BN: Tensor
    """Advantages as the policy's loss takes them: whitened if asked for."""
    said_BN: Tensor
    """The value head's output."""
    wanted_BN: Tensor
    """The output that it should have."""


@dataclass(frozen=True, kw_only=True)
class ActorCriticUpdate:
    """Hyperparameters are those of conf/algorithm/ppo.yaml."""

    training: Training
    critic: Critic
    temperature: float
    clip_low: float
    clip_high: float
    dual_clip: float | None
    value_clip: float | None
    value_coefficient: float
    entropy_coefficient: float
    target_kl: float | None

    def __call__(self, judged: Judged, *, generation: int, value_only: bool, figures: Figures) -> Steps:
        """Take the steps, until the approximate KL exceeds its target. value_only: the policy stays as it is."""
        actions = judged.actions
        learns_B = torch.ones_like(actions.length_B, dtype=torch.bool)

        def work(part_K: Tensor, _: Steps) -> Work:
            weight_BN = minibatch_weights(actions.mask_BN, part_K)
            return partial(self._accumulate, judged, weight_BN, figures, value_only)

        epochs = self.training.parts(learns_B, generation)
        return self.training.improve(epochs, learns_B, actions.length_B, work, figures, most=self.target_kl)

    def _accumulate(
        self, judged: Judged, weight_BN: Tensor, figures: Figures, value_only: bool, row_K: Tensor
    ) -> float:
        """Add the gradient of some rows; return their share of the minibatch's approximate KL from the sampling policy."""
        part = judged.actions.select(row_K)
        with torch.set_grad_enabled(not value_only):
            scores = self.training.policy.score(part, self.temperature)
        kind, width = scores.logprob_BN.dtype, part.mask_BN.shape[1]
        weight_KN, advantage_KN, said_KN, wanted_KN = (
            values_BN[row_K, :width].to(kind)
            for values_BN in (weight_BN, judged.advantage_BN, judged.said_BN, judged.wanted_BN)
        )
        log_ratio_KN = torch.where(part.mask_BN, scores.logprob_BN - part.old_logprob_BN.to(kind), 0.0)
        ratio_KN = log_ratio_KN.exp()
        policy_KN = clipped_surrogate(ratio_KN, advantage_KN, self.clip_low, self.clip_high, self.dual_clip)
        head_KN = self.critic.judge(part, scores)[0].to(kind)
        critic_KN = value_loss(head_KN, said_KN, wanted_KN, self.value_clip)
        loss_KN = self.value_coefficient * critic_KN
        if not value_only:
            loss_KN = policy_KN + loss_KN
            if self.entropy_coefficient > 0:
                loss_KN = loss_KN - self.entropy_coefficient * scores.entropy_BN
        (loss_KN * weight_KN).sum().backward()
        with torch.no_grad():
            mask = part.mask_BN
            approx_kl_KN = kl_divergence(torch.zeros_like(log_ratio_KN), log_ratio_KN, "k3")
            outside = (ratio_KN < 1 - self.clip_low) | (ratio_KN > 1 + self.clip_high)
            figures.mean(
                [
                    ("approx_kl", float(approx_kl_KN[mask].mean())),
                    ("clip_ratio/region_mean", float(outside[mask].cpu().double().mean())),
                    ("entropy", float(scores.entropy_BN[mask].nanmean())),
                    ("policy_loss", float(policy_KN[mask].mean())),
                    ("value_loss", float(critic_KN[mask].mean())),
                ],
                float(mask.sum()),
            )
            return float((approx_kl_KN * weight_KN).sum())

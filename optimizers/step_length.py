"""The length of a step by the KL that it moves the policy by.

A step is longer or shorter than the optimizer's by a factor that grows while the KL of an episode is below its target and
shrinks while it is above; one that leads much too far is taken back in part at once. The learning rate is where the
factor begins.

Shapes: B rows, M episodes, A actions.
"""

import torch

from evotext.policy.actions import Actions

from .scoring import Scoring
from .small_space import SmallSpaceWeights

# A step is taken back in part, so many times at most, when its KL is more than so many times the target.
TOO_FAR, CORRECTIONS = 2.0, 3
# Bounds of the factor's change from one step to the next.
LEAST_CHANGE, MOST_CHANGE = 0.5, 1.5


class StepLength:
    """The factor of a learner's steps. episodes: that the KL is measured on; temperature: that they were sampled at."""

    def __init__(self, scoring: Scoring, *, episodes: int, temperature: float) -> None:
        self._scoring, self._episodes, self._temperature = scoring, episodes, temperature
        self.factor = 1.0
        """What the optimizer's next step is multiplied by."""

    def follow(self, actions: Actions, weights: SmallSpaceWeights, target: float) -> dict[str, float]:
        """Take back of the weights' last step what leads much too far, and set the next one's factor; return metrics.

        target: nats an episode from the policy that sampled these.
        """
        for correction in range(CORRECTIONS + 1):
            kl = self._divergence(actions)
            if kl <= TOO_FAR * target or correction == CORRECTIONS:
                break
            share = max((target / kl) ** 0.5, LEAST_CHANGE / 2)
            weights.shorten(share)
            self.factor *= share
        figures = {"kl": kl, "scored/length": self.factor}
        self.factor *= min(max((target / max(kl, 1e-12)) ** 0.5, LEAST_CHANGE), MOST_CHANGE)
        return figures

    def _divergence(self, actions: Actions) -> float:
        """Return the KL of the sampling policy from the present one, nats an episode, on some of all episodes (k3)."""
        rows = min(self._episodes, actions.rows)
        some_M = torch.arange(rows) * actions.rows // rows
        logprob_BA = self._scoring.unperturbed(actions, some_M, temperature=self._temperature)
        d_MA = (logprob_BA - actions.old_logprob_BN.cpu().double())[some_M]
        d_MA = torch.where(actions.mask_BN.cpu()[some_M], d_MA, 0.0)
        return float((d_MA.exp() - d_MA - 1).sum(1).mean())

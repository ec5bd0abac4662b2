"""A batch of trajectories from the policy's side: its own tokens, cut out and aligned.

Everything after this works on actions, (B, N): the environment's tokens are conditions and nothing else.

Shapes: B rows, T tokens, N actions (a row's policy tokens, padded on the right).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from evotext.devices import widest_float
from evotext.types import Trajectories


@dataclass(frozen=True, kw_only=True)
class Actions:
    """Rows to learn from, on the model's device."""

    tokens_BT: Tensor
    """The whole conversation, padded on the right."""
    length_B: Tensor
    """Real tokens of each row."""
    position_BN: Tensor
    """Position of each action in the conversation; 0 where the mask is False."""
    mask_BN: Tensor
    """True for actions, False for padding."""
    turn_BN: Tensor
    """The turn of each action."""
    reward_BN: Tensor
    """The environment's reward for each action (float64, where the device has it)."""
    old_logprob_BN: Tensor
    """The sampler's log-probability (float32)."""

    @property
    def rows(self) -> int:
        """B."""
        return int(self.mask_BN.shape[0])

    def select(self, row_K: Tensor) -> "Actions":
        """Return these rows, trimmed to the longest of them."""
        if not len(row_K):
            return self._part(row_K, 1, 1)
        width = int(self.length_B[row_K].max())
        return self._part(row_K, width, int(self.mask_BN[row_K].sum(1).max()))

    def rows_at(self, row_K: Tensor) -> "Actions":
        """Return these rows, as wide as they are here."""
        return self._part(row_K, self.tokens_BT.shape[1], self.mask_BN.shape[1])

    def _part(self, row_K: Tensor, width: int, actions: int) -> "Actions":
        return Actions(
            tokens_BT=self.tokens_BT[row_K, :width],
            length_B=self.length_B[row_K],
            position_BN=self.position_BN[row_K, :actions],
            mask_BN=self.mask_BN[row_K, :actions],
            turn_BN=self.turn_BN[row_K, :actions],
            reward_BN=self.reward_BN[row_K, :actions],
            old_logprob_BN=self.old_logprob_BN[row_K, :actions],
        )


def joined(parts: Sequence[Actions]) -> Actions:
    """Return the rows of several batches one after another, padded alike."""
    return Actions(**{field.name: stacked([getattr(part, field.name) for part in parts]) for field in fields(Actions)})


def stacked(values: Sequence[Tensor]) -> Tensor:
    """Return the rows of several tensors one after another, those of two axes padded to the widest."""
    width = max(value.shape[-1] for value in values)
    return torch.cat([F.pad(value, (0, width - value.shape[1])) if value.dim() > 1 else value for value in values])


def actions_of(batch: Trajectories, device: torch.device) -> Actions:
    """Return the policy's tokens of each row. A row in which the policy wrote nothing has no actions."""
    assert batch.logprob_BT is not None, "policy gradients ask for the sampler's log-probabilities"
    return cut_out(
        batch.tokens_BT,
        batch.length_B,
        batch.policy_mask_BT,
        turn_BT=batch.turn_BT,
        reward_BT=batch.reward_BT,
        logprob_BT=batch.logprob_BT,
        device=device,
    )


def cut_out(
    tokens_BT: Tensor,
    length_B: Tensor,
    mask_BT: Tensor,
    *,
    turn_BT: Tensor,
    reward_BT: Tensor,
    logprob_BT: Tensor,
    device: torch.device,
) -> Actions:
    """Return the tokens of each row at which the mask is True, and the values at them."""
    count_B = mask_BT.sum(1)
    width = max(1, int(count_B.max()))
    order_BT = torch.argsort((~mask_BT).to(torch.uint8), dim=1, stable=True)[:, :width]  # actions first, in order
    mask_BN = torch.arange(width) < count_B[:, None]
    position_BN = torch.where(mask_BN, order_BT, 0)

    def aligned(values_BT: Tensor) -> Tensor:
        return torch.where(mask_BN, values_BT.gather(1, position_BN), 0).to(device)

    return Actions(
        tokens_BT=tokens_BT.to(device),
        length_B=length_B.to(device),
        position_BN=position_BN.to(device),
        mask_BN=mask_BN.to(device),
        turn_BN=aligned(turn_BT),
        reward_BN=aligned(reward_BT.to(widest_float(device))),
        old_logprob_BN=aligned(logprob_BT),
    )

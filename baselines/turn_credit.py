"""Credit by turns: an answer is judged by what is paid from its turn on, compared with the group at the same turn.

Rewards belong to turns, and their discounted returns are compared, as in GTPO (arXiv 2511.14846); MT-GRPO (arXiv 2505.11821)
does so for two turns. With r_is what is paid to row i for its answer in turn s:

    G_it = sum_{s >= t} gamma^(s - t) r_is        A_it = G_it compared with G_jt over the group's rows j

by any of GRPO's baselines. Rewards of earlier turns, which the answer cannot have caused, leave its advantage: with gamma 1
and a baseline of the group's mean the gradient has the same expectation, and less variance where turns are paid for themselves.

Deviation: a row that ended before turn t is compared by its last G, so that where the last turn alone pays, and gamma is 1,
advantages are exactly those of whole episodes; what is no part of a turn (a KL, a penalty for length) is paid at the last one.

Shapes: B rows, N actions (a row's policy tokens, padded on the right), S turns.
"""

import torch
from torch import Tensor

from evotext.policy.actions import Actions
from evotext.policy.advantages import Baseline, group_advantages


def returns_from_turns(actions: Actions, return_B: Tensor, discount: float) -> Tensor:
    """Return (B, S), float64 on the CPU: what is paid from each turn on, discounted; after a row's last turn the last one's.

    return_B: the returns that rewards add up to, shaped or not; the difference is paid at the last turn.
    """
    turn_BN, mask_BN = actions.turn_BN.cpu(), actions.mask_BN.cpu()
    reward_BS = torch.zeros(actions.rows, int(turn_BN.max()) + 1, dtype=torch.float64)
    reward_BS.scatter_add_(1, turn_BN, actions.reward_BN.cpu().double().where(mask_BN, 0.0))
    last_B1 = turn_BN.where(mask_BN, 0).amax(1, keepdim=True)
    reward_BS.scatter_add_(1, last_B1, (return_B.double() - reward_BS.sum(1))[:, None])
    for turn in range(reward_BS.shape[1] - 2, -1, -1):
        reward_BS[:, turn] += discount * reward_BS[:, turn + 1]
    turn_S = torch.arange(reward_BS.shape[1])
    return reward_BS.gather(1, turn_S.minimum(last_B1))


def turn_advantages(return_BS: Tensor, group_B: Tensor, baseline: Baseline) -> Tensor:
    """Return (B, S), float64: the advantage of each turn's answer."""
    return torch.stack([group_advantages(return_B, group_B, baseline) for return_B in return_BS.unbind(1)], dim=1)

"""Advantages: how much better an action was than expected. Returns are maximised; advantages carry no gradient.

Generalised advantage estimation (arXiv 1506.02438), over a row's own actions t = 0 ... n - 1 with values V:

    delta_t = r_t + gamma_t V_{t+1} - V_t        A_t = delta_t + gamma_t lambda_t A_{t+1}

V_n is 0 after a terminated episode and the value of the last state after a truncated one.

Shapes: B rows, N actions (a row's policy tokens, padded on the right).
"""

from typing import Literal

import torch
from torch import Tensor

from evotext.devices import widest_float


def generalised_advantages(
    reward_BN: Tensor, value_BN: Tensor, bootstrap_B: Tensor, mask_BN: Tensor, decay_BN: Tensor, discount_BN: Tensor
) -> Tensor:
    """Return advantages (B, N) over policy tokens; 0 where the mask is False.

    bootstrap_B: the value of the state after the last action, 0 for a terminated episode.
    discount_BN, decay_BN: gamma and lambda from action t to the next; all gamma (lambda) when they count tokens, 1
    within a turn when they count turns.
    """
    advantage_BN = torch.zeros_like(value_BN)
    following_B = torch.zeros_like(bootstrap_B)  # advantage of the next action
    next_value_B = bootstrap_B.clone()
    for t in range(reward_BN.shape[1] - 1, -1, -1):
        here_B = mask_BN[:, t]
        delta_B = reward_BN[:, t] + discount_BN[:, t] * next_value_B - value_BN[:, t]
        estimate_B = delta_B + discount_BN[:, t] * decay_BN[:, t] * following_B
        following_B = torch.where(here_B, estimate_B, following_B)
        next_value_B = torch.where(here_B, value_BN[:, t], next_value_B)
        advantage_BN[:, t] = torch.where(here_B, estimate_B, 0.0)
    return advantage_BN


def rates_between(
    mask_BN: Tensor, turn_BN: Tensor, gamma: float, gae_lambda: float, unit: Literal["token", "turn"]
) -> tuple[Tensor, Tensor]:
    """Return gamma and lambda from each action to the next (`widest_float`): everywhere, or only at a turn's end."""
    device = mask_BN.device
    discount_BN = torch.full(mask_BN.shape, gamma, dtype=widest_float(device), device=device)
    decay_BN = torch.full_like(discount_BN, gae_lambda)
    if unit == "turn":
        same_turn_BN = torch.zeros_like(mask_BN)
        same_turn_BN[:, :-1] = (turn_BN[:, 1:] == turn_BN[:, :-1]) & mask_BN[:, 1:]
        discount_BN[same_turn_BN] = 1.0
        decay_BN[same_turn_BN] = 1.0
    return discount_BN, decay_BN


def whitened(values_BN: Tensor, mask_BN: Tensor, spread: float) -> Tensor:
    """Return the masked entries less their mean, over the larger of their (population) deviation and `spread`; others stay 0.

    spread: of returns that differed; 0 if none ever did, and then all entries are 0.
    """
    if spread == 0:
        return torch.zeros_like(values_BN)
    chosen = values_BN[mask_BN]
    return torch.where(mask_BN, (values_BN - chosen.mean()) / max(float(chosen.std(unbiased=False)), spread), 0.0)

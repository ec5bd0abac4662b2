"""The experts of a mixture in a perturbed network: each token's products with its experts' matrices plus its member's noise.

    up    gate and up of expert e:  x U_e^T + b_e    plus  sigma x E_{n,e}^T  of the row's member n
    down  of what the gate lets through, with D_e, in the same way; the token's experts are summed by the router's weights

The stored matrices' products are shared by the population, grouped by expert alone; the noise is by expert and member. A
module is recognised by the attributes of transformers' `use_experts_implementation`, and checked against its own `forward`.

Shapes: N tokens (= P members x K tokens), C choices (the experts of a token), S slots (= N x C), E experts, H hidden, I inner.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeGuard, cast

import torch
from torch import Tensor, nn

from .active import Active, CannotPerturbError
from .grouped_product import grouped_product


class Experts(Protocol):
    """The attributes that transformers gives every module of experts that can run in several ways."""

    has_gate: bool
    has_bias: bool
    has_post_expert_norm: bool
    is_transposed: bool
    """True if matrices are kept E x I x O, False if E x O x I."""
    act_fn: Callable[[Tensor], Tensor]
    _apply_gate: Callable[[Tensor], Tensor]
    _parameters: dict[str, Tensor]


def are_experts(module: nn.Module) -> TypeGuard[Any]:
    """Return whether the module's code is known: not so for shared experts and mixtures with code of their own."""
    known = {"has_gate", "has_bias", "has_post_expert_norm", "is_transposed"} <= vars(module).keys()
    return known and not vars(module)["has_post_expert_norm"]


def experts_forward(module: nn.Module, names: Mapping[str, str], active: Active) -> Callable[..., Tensor]:
    """Return a `forward` for the module. names: of its perturbed parameters, by what the module calls them."""
    experts = cast(Experts, module)
    up, down = ("gate_up_proj" if experts.has_gate else "up_proj"), "down_proj"

    def product(key: str, x_SI: Tensor, expert_S: Tensor) -> Tensor:
        """Multiply each slot with its expert's matrix `key`; add bias and noise; (S, O)."""
        matrix_EIO = experts._parameters[key]
        matrix_EIO = matrix_EIO if experts.is_transposed else matrix_EIO.transpose(1, 2)
        y_SO = grouped_product(x_SI, matrix_EIO, expert_S)
        expert_PK = expert_S.view(active.members, -1)
        if key in names:
            noise_PKO = active.noise.experts(names[key], expert_PK, x_SI.view(active.members, -1, x_SI.shape[1]))
            y_SO = y_SO if noise_PKO is None else y_SO.add_(noise_PKO.view_as(y_SO))
        if experts.has_bias:
            bias = f"{key}_bias"
            y_SO = y_SO.add_(experts._parameters[bias][expert_S])
            if bias in names:
                active.noise.add_to_embedding(names[bias], expert_PK, y_SO.view(active.members, -1, y_SO.shape[1]))
        return y_SO

    def forward(hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        chosen_NC, weight_NC = top_k_index, top_k_weights
        x_NH = hidden_states.reshape(-1, hidden_states.shape[-1])
        if x_NH.shape[0] % active.rows or chosen_NC.dim() != 2 or chosen_NC.shape[0] != x_NH.shape[0]:
            raise CannotPerturbError(next(iter(names.values())), f"got tokens of shape {tuple(hidden_states.shape)}")
        choices, expert_S = chosen_NC.shape[1], chosen_NC.reshape(-1)  # a token's slots lie together, members in order
        inner_SI = product(up, x_NH.repeat_interleave(choices, dim=0), expert_S)
        inner_SI = experts._apply_gate(inner_SI) if experts.has_gate else experts.act_fn(inner_SI)
        y_SH = product(down, inner_SI, expert_S)
        y_NCH = y_SH.view(*chosen_NC.shape, -1) * weight_NC[..., None]
        return torch.sum(y_NCH, dim=1).to(hidden_states.dtype).view_as(hidden_states)

    return forward

"""Full-rank noise: every entry of a member's perturbation is drawn by itself, as in OpenAI-ES and ES at scale.

    forward  x (W + sigma E)^T = x W^T + sigma x E^T, with the E of every member of the batch in memory
    combine  sum_p w_p E_p, drawn again some members at a time

Memory: the weights' size for each antithetic pair (or member) whose rows are in the batch, and never for the whole
population: `rows` bounds it, being divided by the rows a member has. The stored weights are not touched.

Shapes: N draws (antithetic pairs, or members), P members, G draws of a batch (its members, or its pairs), K positions a
member, O outputs, I inputs (an embedding is O = V by I = D).
"""

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from evotext.keys.philox import Purpose, many_normals, stream_id
from evotext.noise import FromStart, NoiseKey, ParameterSpec, PerturbableNetwork
from evotext.validation import checked_record

from ..perturbed.grouped_product import grouped_product
from . import members_in_progress
from .members_in_progress import MembersInProgress


@checked_record
class FullRank:
    """The `Perturbation` of OpenAI-ES. vectors: whether biases and norm scales get `full` noise or stay `frozen`."""

    vectors: Literal["full", "frozen"]

    def moves(self, spec: ParameterSpec) -> bool:
        """Return True for matrices and experts, and for vectors unless they are frozen."""
        return spec.kind != "vector" or self.vectors == "full"

    def draw(self, network: PerturbableNetwork, key: NoiseKey) -> "FullRankNoise":
        """Return the noise of one generation; numbers are drawn for the members that run, and again for the update."""
        specs = {name: spec for name, spec in network.parameters.items() if self.moves(spec)}
        return FullRankNoise(network, key, specs)


class FullRankNoise:
    """One generation's full-rank `PopulationNoise`. specs: the parameters that it moves."""

    def __init__(self, network: PerturbableNetwork, key: NoiseKey, specs: Mapping[str, ParameterSpec]) -> None:
        self._network, self._key, self._specs = network, key, specs
        self._in_progress: MembersInProgress[FullRankMembers] = MembersInProgress()

    def active(self, members: Sequence[int], rows_per_member: int) -> AbstractContextManager[None]:
        """Run the network perturbed within it (`ForwardNoise`)."""
        return self._network.active(self.for_members(members), rows_per_member)

    def for_members(self, members: Sequence[int]) -> "FullRankMembers":
        """Return the noise of these members (`ForwardNoise`)."""
        return self._in_progress.get(members, self._members)

    def combine(self, weight_P: Tensor, names: Container[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Yield sum_p w_p E_p of each parameter (`UpdateNoise`); some draws are in memory at a time."""
        weight_N, some = self._key.weigh_draws(weight_P)
        for name, spec in self._specs.items():
            if names is not None and name not in names:
                continue
            yield name, self._combined(spec, weight_N, some)  # no variable here: it would live until the next one

    @property
    def combine_flops(self) -> float:
        """Floating-point operations of one `combine`."""
        return 2.0 * self._key.draws * sum(math.prod(spec.shape) for spec in self._specs.values())

    @property
    def flops_by_matrix(self) -> dict[str, float]:
        """Operations a position that the noise of each matrix adds: as many as those of the weights themselves."""
        return {name: 2.0 * math.prod(spec.shape[-2:]) for name, spec in self._specs.items() if spec.kind != "vector"}

    def _combined(self, spec: ParameterSpec, weight_N: Tensor, some: slice) -> Tensor:
        dtype = torch.promote_types(spec.dtype, torch.float32)
        total = torch.zeros(spec.shape, dtype=dtype, device=spec.device)
        at_once = max(1, members_in_progress.DRAW_NUMBERS // math.prod(spec.shape))
        for first in range(some.start, some.stop, at_once):
            draw_C = torch.arange(first, min(first + at_once, some.stop))
            weight_C = weight_N[draw_C].to(spec.device, dtype)
            total += torch.tensordot(weight_C, self._draw(spec, draw_C).to(dtype), dims=1)
        return total

    def _draw(self, spec: ParameterSpec, draw_G: Tensor) -> Tensor:
        """Return unit normals of these draws in the dtype of the weights, (G, *shape).

        Of a divided parameter the whole is drawn, one draw at a time, for a CPU's generator cannot begin in the middle.
        """
        if spec.part is not None:
            parts = [spec.part.of(self._whole(spec, draw_1), first=1).clone() for draw_1 in draw_G.split(1)]
            return torch.cat(parts)
        return self._whole(spec, draw_G)

    def _whole(self, spec: ParameterSpec, draw_G: Tensor) -> Tensor:
        stream, shape = stream_id(Purpose.WEIGHT_NOISE, spec.index), spec.whole_shape
        drawn = many_normals(self._key.seed, stream, self._key.generation, draw_G, math.prod(shape), spec.device)
        return drawn.to(spec.dtype).view(-1, *shape)

    def _members(self, members: tuple[int, ...]) -> "FullRankMembers":
        some = self._key.whole_draws(members)
        draw_G = self._key.draws_of(members) if some is None else torch.arange(some.start, some.stop)
        noise = {name: self._draw(spec, draw_G).mul_(self._key.sigma_of(name)) for name, spec in self._specs.items()}
        return FullRankMembers(noise, self._key.signs_of(members))


class FullRankMembers:
    """The `MemberNoise` of one batch: sigma E of each draw, (G, *shape), and each member's sign."""

    def __init__(self, noise: dict[str, Tensor], sign_P: Tensor) -> None:
        self.count = len(sign_P)
        self._noise = noise
        # Once, not at each use: a copy from the host in every layer would stall a GPU.
        self._sign_of = {(E.device, E.dtype): sign_P.to(E.device, E.dtype) for E in noise.values()}
        self._member_P = {E.device: torch.arange(len(sign_P), device=E.device) for E in noise.values()}

    def linear(self, name: str, x_PKI: Tensor, start: Tensor | None = None) -> Tensor:
        """Return sigma x E^T of each member, plus `start`."""
        E_GOI = self._noise[name]
        y_GKO = torch.bmm(x_PKI.reshape(E_GOI.shape[0], -1, E_GOI.shape[2]), E_GOI.transpose(1, 2))
        y_PKO = y_GKO.view(self.count, -1, E_GOI.shape[1]).mul_(self._signs_like(y_GKO)[:, None, None])
        return y_PKO if start is None else y_PKO.add_(start)

    def linear_together(self, names: Sequence[str], x_PKI: Tensor) -> Sequence[FromStart]:
        """Return `linear` of each matrix."""
        return [partial(self.linear, name, x_PKI) for name in names]

    def experts(self, name: str, expert_PK: Tensor, x_PKI: Tensor) -> Tensor:
        """Return sigma x E_e^T of each member and its positions' experts, by products grouped by draw and expert."""
        E_GEOI = self._noise[name]
        matrix_GIO = E_GEOI.flatten(0, 1).transpose(1, 2)
        draw_P1 = self._member_P[x_PKI.device][:, None] * E_GEOI.shape[0] // self.count
        group_PK = draw_P1 * E_GEOI.shape[1] + expert_PK
        y_SO = grouped_product(x_PKI.flatten(0, 1), matrix_GIO, group_PK.flatten())
        return y_SO.view(*expert_PK.shape, -1).mul_(self._signs_like(y_SO)[:, None, None])

    def add_to_embedding(self, name: str, ids_PK: Tensor, y_PKD: Tensor) -> None:
        """Add row `ids` of sigma E to y in place."""
        E_GVD = self._noise[name]
        draw_P1 = self._member_P[ids_PK.device][:, None] * E_GVD.shape[0] // self.count
        y_PKD.add_(E_GVD[draw_P1, ids_PK] * self._signs_like(y_PKD)[:, None, None])

    def vector(self, name: str) -> Tensor | None:
        """Return sigma e of each member, (P, N); None for a vector that stays."""
        e_GN = self._noise.get(name)
        if e_GN is None:
            return None
        return e_GN.repeat_interleave(self.count // e_GN.shape[0], dim=0) * self._signs_like(e_GN)[:, None]

    def _signs_like(self, tensor: Tensor) -> Tensor:
        return self._sign_of[tensor.device, tensor.dtype]

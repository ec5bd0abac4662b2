"""A small subspace of the weights, the factors of their largest singular values, in which points are given, not drawn.

    W(z) = W + U diag(s z) V^T      U (O, R), V (I, R): singular vectors of the starting W, s its R largest singular values
    forward  x W(z_n)^T = x W^T + ((x V) * s z_n) U^T: two thin products that all members share

Unlike drawn noise it is the caller who says where each member is. Vectors (biases, norm scales) stay.

Shapes: P members, K positions a member, O outputs, I inputs, R values of a matrix, D all coordinates.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn

from evotext.noise import FromStart

from ..perturbed import PerturbedNetwork
from .members_in_progress import MembersInProgress

# Matrices with a longer shorter side are decomposed by a randomised method, which finds the largest values alone.
EXACT = 1024


class Subspace:
    """The subspace of a network's matrices. values: R. parameters: the network's, by name."""

    def __init__(self, network: PerturbedNetwork, parameters: Mapping[str, nn.Parameter], *, values: int) -> None:
        self.network = network
        self.factors: dict[str, tuple[Tensor, Tensor]] = {}
        """U and V diag(s) of each matrix, in its dtype."""
        for name, spec in network.parameters.items():
            if spec.kind == "matrix":
                matrix_OI = network.in_our_layout(name, parameters[name].detach())
                self.factors[name] = _largest(matrix_OI, min(values, *spec.shape))
        self.names = tuple(self.factors)
        self._sizes = [U.shape[1] for U, _ in self.factors.values()]

    @property
    def dimensions(self) -> int:
        """D."""
        return sum(self._sizes)

    @property
    def flops(self) -> float:
        """Operations of `matrices`."""
        return sum(2.0 * U.shape[0] * U.shape[1] * V.shape[0] for U, V in self.factors.values())

    def by_matrix(self, z_D: Tensor) -> dict[str, Tensor]:
        """Return the coordinates (..., D) of each matrix, (..., R)."""
        return dict(zip(self.names, z_D.split(self._sizes, dim=-1), strict=True))

    def matrices(self, z_D: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield U diag(s z) V^T of every matrix, as the network stores it; float32 or wider."""
        for name, z_R in self.by_matrix(z_D).items():
            U_OR, V_IR = (factor.to(torch.promote_types(factor.dtype, torch.float32)) for factor in self.factors[name])
            change_OI = (U_OR * z_R.to(U_OR)) @ V_IR.T
            yield name, self.network.in_stored_layout(name, change_OI)

    def noise(self, point_PD: Tensor, stored_D: Tensor) -> "SubspaceNoise":
        """Return a population at these points, the stored weights being at `stored_D`."""
        return SubspaceNoise(self, point_PD, stored_D)


class SubspaceNoise:
    """A `PopulationNoise` whose members were placed by somebody else. point_PD: where each stands."""

    def __init__(self, space: Subspace, point_PD: Tensor, stored_D: Tensor) -> None:
        self.point_PD = point_PD
        self._space, self._offset_PD = space, point_PD - stored_D
        self._in_progress: MembersInProgress[SubspaceMembers] = MembersInProgress()

    def active(self, members: Sequence[int], rows_per_member: int) -> AbstractContextManager[None]:
        """Run the network perturbed within it (`ForwardNoise`)."""
        return self._space.network.active(self.for_members(members), rows_per_member)

    def for_members(self, members: Sequence[int]) -> "SubspaceMembers":
        """Return the noise of these members (`ForwardNoise`)."""
        return self._in_progress.get(members, self._members)

    def combine(self, weight_P: Tensor, names: Container[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Yield the weighted sum of the members' offsets; they are what they are, with no scale to leave out."""
        for name, matrix in self._space.matrices(weight_P.to(self._offset_PD) @ self._offset_PD):
            if names is None or name in names:
                yield name, self._space.network.in_our_layout(name, matrix)

    @property
    def combine_flops(self) -> float:
        """Floating-point operations of one `combine`."""
        return self._space.flops

    @property
    def flops_by_matrix(self) -> dict[str, float]:
        """Operations a position that the noise of each matrix adds: two products with R columns."""
        factors = self._space.factors.items()
        return {name: 2.0 * U.shape[1] * (U.shape[0] + V.shape[0]) for name, (U, V) in factors}

    def _members(self, members: tuple[int, ...]) -> "SubspaceMembers":
        return SubspaceMembers(self._space, self._offset_PD[list(members)])


class SubspaceMembers:
    """The `MemberNoise` of one batch."""

    def __init__(self, space: Subspace, offset_PD: Tensor) -> None:
        self.count = len(offset_PD)
        self._factors = space.factors
        self._offset_PR = {n: z.to(space.factors[n][0]) for n, z in space.by_matrix(offset_PD).items()}

    def linear(self, name: str, x_PKI: Tensor, start: Tensor | None = None) -> Tensor:
        """Return x times each member's offset, plus `start`."""
        U_OR, V_IR = self._factors[name]
        y_PKO = ((x_PKI @ V_IR) * self._offset_PR[name][:, None]) @ U_OR.T
        return y_PKO if start is None else y_PKO.add_(start)

    def linear_together(self, names: Sequence[str], x_PKI: Tensor) -> Sequence[FromStart]:
        """Return `linear` of each matrix."""
        return [partial(self.linear, name, x_PKI) for name in names]

    def experts(self, name: str, expert_PK: Tensor, x_PKI: Tensor) -> None:
        """Return None: experts stay."""

    def add_to_embedding(self, name: str, ids_PK: Tensor, y_PKD: Tensor) -> None:
        """Add row `ids` of each member's offset to y in place."""
        U_VR, V_DR = self._factors[name]
        y_PKD.add_((U_VR[ids_PK] * self._offset_PR[name][:, None]) @ V_DR.T)

    def vector(self, name: str) -> Tensor | None:
        """Return None: vectors stay."""
        return None


def _largest(matrix_OI: Tensor, values: int) -> tuple[Tensor, Tensor]:
    """Return U and V diag(s) of the largest singular values."""
    wide = matrix_OI.to(torch.promote_types(matrix_OI.dtype, torch.float32))
    if min(wide.shape) <= EXACT:
        U, s, Vh = torch.linalg.svd(wide, full_matrices=False)
        V = Vh.T
    else:
        with torch.random.fork_rng(devices=[wide.device] if wide.is_cuda else []):
            torch.manual_seed(0)
            U, s, V = torch.svd_lowrank(wide, q=min(values + 8, *wide.shape), niter=4)
    kept = slice(0, values)
    return U[:, kept].to(matrix_OI.dtype).contiguous(), (V[:, kept] * s[kept]).to(matrix_OI.dtype).contiguous()

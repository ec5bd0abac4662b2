"""Low-rank noise: a member's perturbation of a matrix is a product of two thin factors.

Paper: Sarkar et al. 2025, "Evolution Strategies at the Hyperscale" (EGGROLL), arXiv 2511.16652.

    matrix   E = A B^T / sqrt(r),  A (O, r) and B (I, r) standard normal: mean 0, variance 1 in every entry, rank r
    vector   e standard normal, of full size; or frozen, by option

    forward  x (W + sigma E)^T = x W^T + s A^T sigma / sqrt(r),  s = x B: one thin product a member
    combine  sum_p w_p E_p = (A_1 w_1, ..., A_P w_P) (B_1, ..., B_P)^T / sqrt(r): one product of the stacked factors

Memory: (O + I) r numbers for each antithetic pair and matrix, and as many again at most for the members of a batch.
Deviation from the paper's code: noise is drawn once a generation and kept, not drawn again for every token.

Shapes: N draws (antithetic pairs, or members), P members, G draws of a batch (its members, or its pairs), K positions a
member, R rank, O outputs, I inputs (an embedding is O = V by I = D).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor

from evotext.keys.philox import Purpose, normals, stream_id
from evotext.noise import NoiseKey, ParameterSpec, PerturbableNetwork
from evotext.validation import PositiveInt, checked_record

from . import members_in_progress
from .members_in_progress import MembersInProgress


@checked_record
class LowRank:
    """The `Perturbation` of EGGROLL.

    rank: r. vectors: whether biases and norm scales get `full` noise or stay `frozen`.
    """

    rank: PositiveInt
    vectors: Literal["full", "frozen"]

    def moves(self, spec: ParameterSpec) -> bool:
        """Matrices, and vectors unless they are frozen."""
        return spec.kind == "matrix" or self.vectors == "full"

    def draw(self, network: PerturbableNetwork, key: NoiseKey) -> "LowRankNoise":
        """Return the noise of one generation; the numbers are drawn at its first use."""
        specs = {name: spec for name, spec in network.parameters.items() if self.moves(spec)}
        return LowRankNoise(network, key, specs, rank=self.rank)


class LowRankNoise:
    """One generation's low-rank `PopulationNoise`. specs: the parameters that it moves."""

    def __init__(
        self, network: PerturbableNetwork, key: NoiseKey, specs: Mapping[str, ParameterSpec], *, rank: int
    ) -> None:
        self._network, self._key, self._specs, self._rank = network, key, specs, rank
        self._drawn: tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]] | None = None
        self._in_progress: MembersInProgress[LowRankMembers] = MembersInProgress()

    def active(self, members: Sequence[int], rows_per_member: int) -> AbstractContextManager[None]:
        """Run the network perturbed within it (`ForwardNoise`)."""
        return self._network.active(self.for_members(members), rows_per_member)

    def for_members(self, members: Sequence[int]) -> "LowRankMembers":
        """Return the noise of these members (`ForwardNoise`)."""
        return self._in_progress.get(members, self._members)

    def combine(self, weight_P: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield sum_p w_p E_p of each parameter (`UpdateNoise`); draws of weight 0 at the population's ends cost nothing."""
        weight_N, some = self._key.weigh_draws(weight_P)
        factors, vectors = self._numbers()
        for name, spec in self._specs.items():
            dtype = torch.promote_types(spec.dtype, torch.float32)
            weight = weight_N[some].to(spec.device, dtype)
            if spec.kind == "vector":
                yield name, weight @ vectors[name][some].to(dtype)
                continue
            A_NRO, B_NRI = (factor[some].to(dtype) for factor in factors[name])
            A_NRO = A_NRO * (weight / math.sqrt(self._rank))[:, None, None]
            yield name, A_NRO.flatten(0, 1).T @ B_NRI.flatten(0, 1)

    @property
    def combine_flops(self) -> float:
        """Floating-point operations of one `combine`."""
        columns = sum(math.prod(s.shape) * (self._rank if s.kind == "matrix" else 1) for s in self._specs.values())
        return 2.0 * self._key.draws * columns

    @property
    def flops_by_matrix(self) -> dict[str, float]:
        """Operations a position that the noise of each matrix adds: two thin products."""
        matrices = {name: spec.shape for name, spec in self._specs.items() if spec.kind == "matrix"}
        return {name: 2.0 * self._rank * sum(shape) for name, shape in matrices.items()}

    def _numbers(self) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
        """Factors (A_NRO, B_NRI) of each matrix and e_NN of each vector: unit normals in the dtype of the weights."""
        if self._drawn is None:
            factors: dict[str, tuple[Tensor, Tensor]] = {}
            vectors: dict[str, Tensor] = {}
            draws = self._key.draws
            for batch in self._draw_batches(draws):
                index_N = torch.arange(draws, device=batch[0][1].device)
                streams = [(stream_id(Purpose.WEIGHT_NOISE, s.index), self._count(s)) for _, s in batch]
                numbers = normals(self._key.seed, self._key.generation, index_N, streams)
                for (name, spec), drawn in zip(batch, numbers, strict=True):
                    if spec.kind == "vector":
                        vectors[name] = drawn.to(spec.dtype, copy=True)
                        continue
                    O, I = spec.shape  # noqa: E741
                    A, B = drawn.to(spec.dtype).split((self._rank * O, self._rank * I), dim=1)
                    factors[name] = (
                        A.contiguous().view(draws, self._rank, O),
                        B.contiguous().view(draws, self._rank, I),
                    )
            self._drawn = factors, vectors
        return self._drawn

    def _count(self, spec: ParameterSpec) -> int:
        return sum(spec.shape) * (self._rank if spec.kind == "matrix" else 1)

    def _draw_batches(self, draws: int) -> Iterator[list[tuple[str, ParameterSpec]]]:
        """Runs of parameters on one device, few enough to be drawn at once."""
        batch: list[tuple[str, ParameterSpec]] = []
        for name, spec in self._specs.items():
            size = draws * (sum(self._count(s) for _, s in batch) + self._count(spec))
            if batch and (size > members_in_progress.DRAW_NUMBERS or spec.device != batch[0][1].device):
                yield batch
                batch = []
            batch.append((name, spec))
        if batch:
            yield batch

    def _members(self, members: tuple[int, ...]) -> "LowRankMembers":
        factors, vectors = self._numbers()
        key, sigma = self._key, self._key.sigma
        fold, sign_P, some = key.members_per_draw, key.signs_of(members), key.whole_draws(members)
        draw_P = key.draws_of(members)
        chosen: dict[str, tuple[Tensor, Tensor]] = {}
        for name, (A_NRO, B_NRI) in factors.items():
            scale_P = (sign_P * (sigma / math.sqrt(self._rank))).to(A_NRO.device, A_NRO.dtype)
            if some is not None:  # both members of a pair read one B
                A_GFRO = A_NRO[some, None] * scale_P.view(-1, fold, 1, 1)
                chosen[name] = A_GFRO.flatten(0, 1), B_NRI[some]
            else:
                draw = draw_P.to(A_NRO.device)
                chosen[name] = A_NRO[draw] * scale_P[:, None, None], B_NRI[draw]
        moved = {
            name: e_NN[draw_P.to(e_NN.device)] * (sign_P * sigma).to(e_NN.device, e_NN.dtype)[:, None]
            for name, e_NN in vectors.items()
        }
        together = [tuple(name for name in names if name in chosen) for names in self._network.together]
        return LowRankMembers(len(members), chosen, moved, together)


class LowRankMembers:
    """The `MemberNoise` of one batch: A with sign, sigma and 1 / sqrt(r) folded in, and plain B, for each matrix.

    together: matrices that read the same input; their B are stacked, so that it is read once for all of them.
    """

    def __init__(
        self,
        count: int,
        factors: dict[str, tuple[Tensor, Tensor]],
        vectors: dict[str, Tensor],
        together: Sequence[tuple[str, ...]],
    ) -> None:
        self.count = count
        self._factors = factors
        self._vectors = vectors
        self._followers: dict[str, tuple[tuple[str, ...], Tensor]] = {}
        # For a matrix whose turn comes next: the input that was read for it, and what came of it.
        self._ahead: dict[str, tuple[Tensor, Tensor]] = {}
        for names in together:
            if len(names) > 1:
                stacked = torch.cat([factors[name][1] for name in names], dim=1)
                for name, B_GRI in zip(names, stacked.chunk(len(names), dim=1), strict=True):
                    factors[name] = factors[name][0], B_GRI
                self._followers[names[0]] = names[1:], stacked

    def linear(self, name: str, x_PKI: Tensor, start: Tensor | None = None) -> Tensor:
        """Return sigma x E^T of each member, plus `start`."""
        A_PRO = self._factors[name][0]
        rank = A_PRO.shape[1]
        s_GRK = self._reduce(name, x_PKI)
        if rank == 1:
            s_PK1 = s_GRK.reshape(self.count, -1, 1)
            return s_PK1 * A_PRO if start is None else torch.addcmul(start, s_PK1, A_PRO)
        s_PKR = s_GRK.transpose(1, 2).reshape(self.count, -1, rank)
        return torch.bmm(s_PKR, A_PRO) if start is None else torch.baddbmm(start, s_PKR, A_PRO)

    def _reduce(self, name: str, x_PKI: Tensor) -> Tensor:
        """s = x B as (G, R, K)."""
        B_GRI = self._factors[name][1]
        draws, rank, inputs = B_GRI.shape
        x_ahead, s_GRK = self._ahead.pop(name, (None, None))
        if s_GRK is not None and x_ahead is not None and _same(x_ahead, x_PKI):
            return s_GRK
        followers, B_stacked = self._followers.get(name, ((), B_GRI))
        # B from the left: several times faster than x B for these thin products on a CPU.
        s_all = torch.bmm(B_stacked, x_PKI.reshape(draws, -1, inputs).transpose(1, 2))
        for k, follower in enumerate(followers, start=1):
            self._ahead[follower] = x_PKI, s_all[:, k * rank : (k + 1) * rank]
        return s_all[:, :rank]

    def add_to_embedding(self, name: str, ids_PK: Tensor, y_PKD: Tensor) -> None:
        """Add row `ids` of sigma E to y in place."""
        A_PRO, B_GRI = self._factors[name]
        draws, rank, width = B_GRI.shape
        a_PRK = A_PRO.gather(2, ids_PK[:, None].expand(-1, rank, -1))
        y_PKD.view(draws, -1, width).baddbmm_(a_PRK.transpose(1, 2).reshape(draws, -1, rank), B_GRI)

    def vector(self, name: str) -> Tensor | None:
        """Return sigma e of each member, (P, N); None for a vector that stays."""
        return self._vectors.get(name)


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two living tensors are the same memory."""
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape

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
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from evotext.keys.philox import Purpose, normals, stream_id
from evotext.noise import FromStart, NoiseKey, ParameterSpec, PerturbableNetwork
from evotext.validation import PositiveInt, checked_record

from . import experts, members_in_progress
from .members_in_progress import MembersInProgress
from .thin_products import added, reduced


@checked_record
class LowRank:
    """The `Perturbation` of EGGROLL.

    rank: r. vectors: whether biases and norm scales get `full` noise or stay `frozen`.
    """

    rank: PositiveInt
    vectors: Literal["full", "frozen"]

    def moves(self, spec: ParameterSpec) -> bool:
        """Return True for matrices and experts, and for vectors unless they are frozen."""
        return spec.kind != "vector" or self.vectors == "full"

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

    def combine(self, weight_P: Tensor, names: Container[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Yield sum_p w_p E_p of each parameter (`UpdateNoise`); draws of weight 0 at the population's ends cost nothing."""
        weight_N, some = self._key.weigh_draws(weight_P)
        factors, vectors = self._numbers()
        for name, spec in self._specs.items():
            if names is not None and name not in names:
                continue
            dtype = torch.promote_types(spec.dtype, torch.float32)
            weight = weight_N[some].to(spec.device, dtype)
            if spec.kind == "vector":
                yield name, weight @ vectors[name][some].to(dtype)
                continue
            A_NRO, B_NRI = (factor[some].to(dtype) for factor in factors[name])
            if spec.kind == "experts":
                yield name, experts.combined(A_NRO, B_NRI, weight / math.sqrt(self._rank))
                continue
            A_NRO = A_NRO * (weight / math.sqrt(self._rank))[:, None, None]
            yield name, A_NRO.flatten(0, 1).T @ B_NRI.flatten(0, 1)

    @property
    def combine_flops(self) -> float:
        """Floating-point operations of one `combine`."""
        columns = sum(math.prod(s.shape) * (1 if s.kind == "vector" else self._rank) for s in self._specs.values())
        return 2.0 * self._key.draws * columns

    @property
    def flops_by_matrix(self) -> dict[str, float]:
        """Operations a position that the noise of each matrix adds: two thin products."""
        matrices = {name: spec.shape[-2:] for name, spec in self._specs.items() if spec.kind != "vector"}
        return {name: 2.0 * self._rank * sum(shape) for name, shape in matrices.items()}

    def _numbers(self) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
        """Return factors (A_NRO, B_NRI) of each matrix and e_NN of each vector: unit normals in the dtype of the weights.

        For experts: A_NREO and B_NREI.
        """
        if self._drawn is None:
            factors: dict[str, tuple[Tensor, Tensor]] = {}
            vectors: dict[str, Tensor] = {}
            draws = self._key.draws
            for batch in self._draw_batches(draws):
                index_N = torch.arange(draws, device=batch[0][1].device)
                places = [_places(spec, self._rank) for _, spec in batch]
                streams = [
                    (stream_id(Purpose.WEIGHT_NOISE, spec.index), run)
                    for (_, spec), runs in zip(batch, places, strict=True)
                    for run in runs
                ]
                numbers = iter(normals(self._key.seed, self._key.generation, index_N, streams))
                for (name, spec), runs in zip(batch, places, strict=True):
                    own = [next(numbers) for _ in runs]
                    drawn = own[0] if len(own) == 1 else torch.cat(own, dim=1)
                    if spec.kind == "vector":
                        if spec.part is not None and spec.part.dim is None:
                            drawn = spec.part.of(drawn, first=1)
                        vectors[name] = drawn.to(spec.dtype, copy=True)
                        continue
                    *each, O, I = spec.shape  # noqa: E741
                    matrices = self._rank * math.prod(each)
                    A, B = drawn.to(spec.dtype).split((matrices * O, matrices * I), dim=1)
                    factors[name] = (
                        A.contiguous().view(draws, self._rank, *each, O),
                        B.contiguous().view(draws, self._rank, *each, I),
                    )
            self._drawn = factors, vectors
        return self._drawn

    def _count(self, spec: ParameterSpec) -> int:
        if spec.kind == "vector":
            return spec.shape[0]
        return self._rank * math.prod(spec.shape[:-2]) * sum(spec.shape[-2:])

    def _draw_batches(self, draws: int) -> Iterator[list[tuple[str, ParameterSpec]]]:
        """Yield runs of parameters on one device, few enough to be drawn at once."""
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
        key = self._key
        fold, sign_P, some = key.members_per_draw, key.signs_of(members), key.whole_draws(members)
        draw_P = key.draws_of(members)
        chosen: dict[str, tuple[Tensor, Tensor]] = {}
        for name, (A_NRO, B_NRI) in factors.items():
            scale_P = (sign_P * (key.sigma_of(name) / math.sqrt(self._rank))).to(A_NRO.device, A_NRO.dtype)
            if some is not None:  # both members of a pair read one B
                A_GFRO = A_NRO[some, None] * scale_P.view(-1, fold, *[1] * (A_NRO.ndim - 1))
                chosen[name] = A_GFRO.flatten(0, 1), B_NRI[some]
            else:
                draw = draw_P.to(A_NRO.device)
                chosen[name] = A_NRO[draw] * scale_P.view(-1, *[1] * (A_NRO.ndim - 1)), B_NRI[draw]
        moved = {
            name: e_NN[draw_P.to(e_NN.device)] * (sign_P * key.sigma_of(name)).to(e_NN.device, e_NN.dtype)[:, None]
            for name, e_NN in vectors.items()
        }
        return LowRankMembers(len(members), chosen, moved)


class LowRankMembers:
    """The `MemberNoise` of one batch: A with sign, sigma and 1 / sqrt(r) folded in, and plain B, for each matrix."""

    def __init__(self, count: int, factors: dict[str, tuple[Tensor, Tensor]], vectors: dict[str, Tensor]) -> None:
        self.count = count
        self._factors = factors
        self._vectors = vectors
        self._stacked: dict[tuple[str, ...], Tensor] = {}

    def linear(self, name: str, x_PKI: Tensor, start: Tensor | None = None) -> Tensor:
        """Return sigma x E^T of each member, plus `start`."""
        A_PRO, B_GRI = self._factors[name]
        return added(A_PRO, reduced(B_GRI, x_PKI), start)

    def linear_together(self, names: Sequence[str], x_PKI: Tensor) -> Sequence[FromStart]:
        """Return `linear` of each matrix, by its start. The input is read once, by the B of all."""
        s_GRK = reduced(self._stack(tuple(names)), x_PKI)
        parts = zip(names, s_GRK.chunk(len(names), dim=1), strict=True)
        return [partial(added, self._factors[name][0], part) for name, part in parts]

    def experts(self, name: str, expert_PK: Tensor, x_PKI: Tensor) -> Tensor:
        """Return sigma x E_e^T of each member and its positions' experts."""
        A_PREO, B_GREI = self._factors[name]
        return experts.applied(A_PREO, B_GREI, expert_PK, x_PKI)

    def add_to_embedding(self, name: str, ids_PK: Tensor, y_PKD: Tensor) -> None:
        """Add row `ids` of sigma E to y in place."""
        A_PRO, B_GRI = self._factors[name]
        draws, rank, width = B_GRI.shape
        a_PRK = A_PRO.gather(2, ids_PK[:, None].expand(-1, rank, -1))
        y_PKD.view(draws, -1, width).baddbmm_(a_PRK.transpose(1, 2).reshape(draws, -1, rank), B_GRI)

    def vector(self, name: str) -> Tensor | None:
        """Return sigma e of each member, (P, N); None for a vector that stays."""
        return self._vectors.get(name)

    def _stack(self, names: tuple[str, ...]) -> Tensor:
        """Return B of these matrices, one below another; from then on each matrix has its part of it."""
        if names not in self._stacked:
            stacked = torch.cat([self._factors[name][1] for name in names], dim=1)
            for name, B_GRI in zip(names, stacked.chunk(len(names), dim=1), strict=True):
                self._factors[name] = self._factors[name][0], B_GRI
            self._stacked[names] = stacked
        return self._stacked[names]


def _places(spec: ParameterSpec, rank: int) -> list[range]:
    """Return the places of this parameter's numbers in its stream: of a matrix r rows of A, then r rows of B.

    Of a divided parameter those of this process's part.
    """
    if spec.part is None or spec.part.dim is None:
        return [range((1 if spec.kind == "vector" else rank * math.prod(spec.shape[:-2])) * sum(spec.shape[-2:]))]
    own = range(spec.part.start, spec.part.stop)
    if spec.kind == "vector":
        return [own]
    outputs, inputs = spec.whole_shape
    rows = {0: (own, range(inputs)), 1: (range(outputs), own)}
    A, B = rows[spec.part.dim]
    return [range(r * outputs + A.start, r * outputs + A.stop) for r in range(rank)] + [
        range(rank * outputs + r * inputs + B.start, rank * outputs + r * inputs + B.stop) for r in range(rank)
    ]

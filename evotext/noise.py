"""A population's noise: its key, of which it is a pure function, and each side's view of it.

    network     `PerturbableNetwork` names its parameters, and runs batches with a `MemberNoise` in its layers
    engine      `ForwardNoise` runs rollouts as members of the population
    estimator   `UpdateNoise` sums the members' noise, weighted by fitness, into a pseudo-gradient
    `Perturbation` draws a generation's `PopulationNoise`, which is both sides of one noise

Shape suffixes: P population members, N draws, K rows a member, O outputs, I inputs, E experts, D embedding width.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from evotext.distributed.parts import Part

FromStart = Callable[[Tensor | None], Tensor]
"""A member's noise of one matrix and input, which is still to be added to a start (`MemberNoise.linear`)."""


@dataclass(frozen=True, kw_only=True)
class ParameterSpec:
    """A parameter that a perturbation may move, in the layout (O, I) whatever the layer stores."""

    kind: Literal["matrix", "vector", "experts"]
    """`matrix`: linear layers, embeddings and heads (an embedding is V x D). `vector`: biases and norm scales.
    `experts`: the matrices of a mixture's experts, one for each."""
    shape: tuple[int, ...]
    """(O, I) of a matrix, (N,) of a vector, (E, O, I) of E experts; of the part that this process holds."""
    index: int
    """Position in the model's sorted list of parameters, excluded ones counted: part of the noise's key."""
    dtype: torch.dtype
    """Type of the stored weights; noise is drawn in float32 and cast to it."""
    device: torch.device
    """The device that holds the weights."""
    part: Part | None = None
    """The part of the whole parameter that this is, where several processes hold it together; its noise is that part's."""

    @property
    def whole_shape(self) -> tuple[int, ...]:
        """The shape of the whole parameter."""
        return self.shape if self.part is None else self.part.whole_shape(self.shape)


@dataclass(frozen=True, kw_only=True)
class NoiseKey:
    """All that a generation's noise depends on, besides the parameters. The same key gives the same noise on every process.

    Antithetic pairs: members 2i and 2i + 1 share draw i, with signs + and -. Otherwise every member has a draw of its own.
    """

    seed: int
    """The run's seed."""
    generation: int
    """Counts from 0."""
    population: int
    """P, the number of members."""
    antithetic: bool
    """Whether members come in mirrored pairs; the population is even then."""
    sigma: float
    """Scale of the perturbation, in units of a weight, or of each parameter's scale."""
    scales: Mapping[str, float] = field(default_factory=dict)
    """Factors of sigma for the parameters whose noise has another size."""

    def __post_init__(self) -> None:
        assert not (self.antithetic and self.population % 2), self.population

    def sigma_of(self, name: str) -> float:
        """Return the size of this parameter's noise, in units of a weight."""
        return self.sigma * self.scales.get(name, 1.0)

    @property
    def draws(self) -> int:
        """N, the number of draws: pairs, or members."""
        return self.population // self.members_per_draw

    @property
    def members_per_draw(self) -> int:
        """2 with antithetic pairs, else 1."""
        return 2 if self.antithetic else 1

    def draws_of(self, members: Sequence[int]) -> Tensor:
        """Return the draw of each of these members, (P,) int64."""
        assert all(0 <= member < self.population for member in members), members
        return torch.tensor([member // self.members_per_draw for member in members])

    def signs_of(self, members: Sequence[int]) -> Tensor:
        """Return +1 or -1 for each of these members, (P,) float64."""
        return torch.tensor([1 - 2 * (member % self.members_per_draw) for member in members], dtype=torch.float64)

    def whole_draws(self, members: Sequence[int]) -> slice | None:
        """Return the draws of these members if they are whole pairs in order, so that both can read one draw; else None."""
        fold, first = self.members_per_draw, members[0]
        in_order = tuple(members) == tuple(range(first, first + len(members)))
        if not in_order or first % fold or len(members) % fold:
            return None
        return slice(first // fold, (members[-1] + 1) // fold)

    def weigh_draws(self, weight_P: Tensor) -> tuple[Tensor, slice]:
        """Turn the members' weights into weights of the draws, (N,).

        Return them with the range of draws outside of which every weight is 0.
        """
        assert weight_P.shape == (self.population,), weight_P.shape
        weight_N = weight_P[0::2] - weight_P[1::2] if self.antithetic else weight_P
        used = weight_N.nonzero().flatten().tolist() or [0]
        return weight_N, slice(used[0], used[-1] + 1)


class MemberNoise(Protocol):
    """The noise of the members of one batch of rows, times sigma. Rows come as (P, K): K rows of each of P members.

    K counts positions: a row of T tokens comes as T of them, next to each other.
    """

    @property
    def count(self) -> int:
        """P, the number of members."""

    def linear(self, name: str, x_PKI: Tensor, start: Tensor | None = None) -> Tensor:
        """Return a new contiguous (P, K, O): sigma * x E^T, E being the member's noise for the matrix `name`, plus `start`.

        start: (O,), or (P, 1, O) for one a member; what a layer's bias is. Or (P, K, O) with K > 1, what the layer itself
        gives, which may be written over.
        """

    def linear_together(self, names: Sequence[str], x_PKI: Tensor) -> Sequence[FromStart]:
        """Return `linear` of each of these matrices by its start. They read one input, as queries, keys and values do."""

    def experts(self, name: str, expert_PK: Tensor, x_PKI: Tensor) -> Tensor | None:
        """Return a new (P, K, O): sigma * x E_e^T, e being the position's expert; None where experts stay.

        expert_PK: integers from 0 to E - 1, so that a position which is sent to several experts comes several times.
        """

    def add_to_embedding(self, name: str, ids_PK: Tensor, y_PKD: Tensor) -> None:
        """Add row `ids` of sigma * E to y in place."""

    def vector(self, name: str) -> Tensor | None:
        """Return sigma * e for the vector `name`, shape (P, N); None where vectors are frozen."""


class PerturbableNetwork(Protocol):
    """A network whose layers can add a population's noise (`evotext.optimizers.perturbed.PerturbedNetwork`)."""

    @property
    def parameters(self) -> Mapping[str, ParameterSpec]:
        """Every parameter that may be perturbed, by its name, sorted."""

    def active(self, noise: MemberNoise, rows_per_member: int) -> AbstractContextManager[None]:
        """Run each row of the network's batches, ordered by member, as its member within the block."""


class ForwardNoise(Protocol):
    """The engine's side of a population's noise: batches of members run perturbed."""

    def active(self, members: Sequence[int], rows_per_member: int) -> AbstractContextManager[None]:
        """Run batches of len(members) x rows_per_member rows, ordered by member, perturbed within the block.

        Members may be any subset of the population in any order. Entering again with the same arguments is cheap.
        """

    def for_members(self, members: Sequence[int]) -> MemberNoise:
        """Return the noise of these members, in this order; the same object while the members stay the same."""

    @property
    def flops_by_matrix(self) -> Mapping[str, float]:
        """The operations that each matrix's noise adds to a forward pass, at each position that goes through its layer.

        For experts: at each position and for each of its experts.
        """


class UpdateNoise(Protocol):
    """The estimator's side of a population's noise: sums over its members."""

    def combine(self, weight_P: Tensor, names: Container[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Yield sum_p weight_p E_p (unit noise, no sigma) of each perturbed parameter, by name in sorted order.

        weight_P covers the whole population. names: of these parameters alone; None: of all.
        Layout of `ParameterSpec`; float32, or float64 where the weights are.
        """

    @property
    def combine_flops(self) -> float:
        """Floating-point operations of one `combine`."""


class PopulationNoise(ForwardNoise, UpdateNoise, Protocol):
    """One generation's noise for a whole population: a pure function of its key, never of how it is chunked."""


@runtime_checkable
class Perturbation(Protocol):
    """The shape of a population's noise: low rank, full rank, ..."""

    def moves(self, spec: ParameterSpec) -> bool:
        """Return whether parameters of this kind are perturbed."""

    def draw(self, network: PerturbableNetwork, key: NoiseKey) -> PopulationNoise:
        """Return the noise of one generation, on every parameter of the network that `moves`."""

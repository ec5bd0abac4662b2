"""Guided noise: low-rank noise within the span of what a layer reads.

Idea: AGZO (activation-guided zeroth-order optimisation), arXiv 2601.17261. The gradient of a linear layer is a sum of outer
products with its inputs, G = sum_t y'_t x_t^T, so that no direction outside of their span has any of it. With V (I, k) the k
strongest directions of the layer's inputs, and A (O, r) and Z (k, r) standard normal,

    matrix      E = (A Z^T / sqrt(r)) V^T,  E[g] = G V V^T
    embedding   reads one-hot vectors, so that V selects the tokens that are read most; the rows of all others stay
    vector      as with low-rank noise: of full size, or frozen

    N MSE / |G V|^2 = O k + 1 + (2 O + 2 k + 2) / r: the error of low-rank noise, with k in place of I

Directions may have different lengths (optimizers/perturbations/basis.py); the forms above are those of equal ones.

Deviations from the paper: the directions are kept for some generations; an embedding's are tokens, which serve a tied
output head, too: what was read is what is written.

Shapes: P members, K positions a member, O outputs, I inputs (an embedding is O = V by I = D), k directions, S chosen tokens.
"""

from collections.abc import Container, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from evotext.noise import FromStart, MemberNoise, NoiseKey, ParameterSpec, PerturbableNetwork
from evotext.validation import Fraction, PositiveInt, checked_record

from .basis import Basis
from .low_rank import LowRank, LowRankNoise
from .members_in_progress import MembersInProgress


@checked_record
class Guided:
    """The `Perturbation`; a learner gives it a basis from time to time (`optimizers/guide.py`).

    rank: r. directions: k, or all of a narrower layer. tokens: most rows of an embedding. whitening: exponent of the
    directions' lengths. refresh: generations between two bases. vectors: whether biases and norm scales get `full` noise
    or stay `frozen`.
    """

    rank: PositiveInt
    directions: PositiveInt
    tokens: PositiveInt
    whitening: Fraction
    refresh: PositiveInt
    vectors: Literal["full", "frozen"]

    def moves(self, spec: ParameterSpec) -> bool:
        """Return True for matrices and experts, and for vectors unless they are frozen."""
        return spec.kind != "vector" or self.vectors == "full"

    def draw(self, network: PerturbableNetwork, key: NoiseKey) -> LowRankNoise:
        """Return low-rank noise in all directions: what there is before anything was read."""
        return LowRank(rank=self.rank, vectors=self.vectors).draw(network, key)

    def draw_within(self, network: PerturbableNetwork, key: NoiseKey, basis: Basis) -> "GuidedNoise":
        """Return the noise of one generation within a basis; a matrix without directions stays."""
        moved = {name: spec for name, spec in network.parameters.items() if self.moves(spec)}
        specs = {name: spec for name, spec in moved.items() if spec.kind != "matrix" or name in basis}
        return GuidedNoise(network, key, basis, specs, rank=self.rank)


class GuidedNoise:
    """One generation's `PopulationNoise` within a basis: low-rank noise in the small space, and the way to and from it."""

    def __init__(
        self,
        network: PerturbableNetwork,
        key: NoiseKey,
        basis: Basis,
        specs: dict[str, ParameterSpec],
        *,
        rank: int,
    ) -> None:
        self._network, self._basis, self._specs = network, basis, specs
        small = {name: basis.small_spec(name, spec) for name, spec in specs.items()}
        self.small = LowRankNoise(_NoLayers(), key, small, rank=rank)
        """The noise of the small space, whose `combine` yields (O, k) of a layer and (S, D) of an embedding."""
        self._in_progress: MembersInProgress[GuidedMembers] = MembersInProgress()

    def active(self, members: Sequence[int], rows_per_member: int) -> AbstractContextManager[None]:
        """Run the network perturbed within it (`ForwardNoise`)."""
        return self._network.active(self.for_members(members), rows_per_member)

    def for_members(self, members: Sequence[int]) -> "GuidedMembers":
        """Return the noise of these members (`ForwardNoise`)."""
        return self._in_progress.get(
            members, lambda chosen: GuidedMembers(self.small.for_members(chosen), self._basis, self._network)
        )

    def combine(self, weight_P: Tensor, names: Container[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Yield sum_p w_p E_p of each parameter (`UpdateNoise`)."""
        for name, small in self.small.combine(weight_P, names):
            yield name, self._basis.lift(name, small, self._specs[name])

    @property
    def combine_flops(self) -> float:
        """Floating-point operations of one `combine`."""
        lifts = sum(2.0 * spec.shape[0] * self._basis.inputs[name].numel() for name, spec in self._layers())
        return self.small.combine_flops + lifts

    @property
    def flops_by_matrix(self) -> dict[str, float]:
        """Operations a position that the noise of each matrix adds: the product with V, and two thin ones.

        A product that layers share is counted for each of them; so much less is done.
        """
        flops = dict.fromkeys((n for n, s in self._network.parameters.items() if s.kind == "matrix"), 0.0)
        flops |= self.small.flops_by_matrix
        for name, _ in self._layers():
            flops[name] += 2.0 * self._basis.inputs[name].numel()
        return flops

    def _layers(self) -> Iterator[tuple[str, ParameterSpec]]:
        return ((name, spec) for name, spec in self._specs.items() if name in self._basis.inputs)


class GuidedMembers:
    """The `MemberNoise` of one batch: inputs go to the small space, where another's noise acts on them."""

    def __init__(self, small: MemberNoise, basis: Basis, network: PerturbableNetwork) -> None:
        self.count, self._small, self._basis = small.count, small, basis
        self._outputs = {name: spec.shape[0] for name, spec in network.parameters.items()}
        self._place_V = {
            name: basis.places(name, network.parameters[name]) for name in basis.tokens if name in network.parameters
        }

    def linear(self, name: str, x_PKI: Tensor, start: Tensor | None = None) -> Tensor:
        """Return sigma x E^T plus the start (`MemberNoise`)."""
        if name in self._basis.inputs:
            return self._small.linear(name, x_PKI @ self._basis.inputs[name], start)
        y_PKO = x_PKI.new_zeros(*x_PKI.shape[:2], self._outputs[name])
        if name in self._basis.tokens:  # an embedding that is the output head, too
            noise_PKS = self._small.linear(name, x_PKI).mul_(self._basis.lengths[name][:, 0])
            y_PKO.index_copy_(2, self._basis.tokens[name], noise_PKS)
        return y_PKO if start is None else y_PKO.add_(start)

    def linear_together(self, names: Sequence[str], x_PKI: Tensor) -> Sequence[FromStart]:
        """Return `linear` of each matrix. Where all have the same directions, the input goes to the small space once."""
        V_Ik = self._basis.inputs.get(names[0])
        if V_Ik is not None and all(self._basis.inputs.get(name) is V_Ik for name in names):
            return self._small.linear_together(names, x_PKI @ V_Ik)
        return [partial(self.linear, name, x_PKI) for name in names]

    def experts(self, name: str, expert_PK: Tensor, x_PKI: Tensor) -> Tensor | None:
        """Return sigma x E_e^T of each position's expert, whose noise has all directions."""
        return self._small.experts(name, expert_PK, x_PKI)

    def add_to_embedding(self, name: str, ids_PK: Tensor, y_PKD: Tensor) -> None:
        """Add row `ids` of sigma E to y in place; rows of other tokens are zero."""
        if name in self._basis.tokens:
            place_PK, length_S1 = self._place_V[name][ids_PK], self._basis.lengths[name]
            noise_PKD = torch.zeros_like(y_PKD)
            self._small.add_to_embedding(name, place_PK.clamp(min=0), noise_PKD)
            y_PKD.add_(noise_PKD * length_S1[place_PK.clamp(min=0)] * (place_PK >= 0)[..., None])

    def vector(self, name: str) -> Tensor | None:
        """Return sigma e, (P, N); None where vectors are frozen."""
        return self._small.vector(name)


class _NoLayers:
    """The small space in place of a network; it never runs."""

    parameters: dict[str, ParameterSpec] = {}

    def active(self, noise: MemberNoise, rows_per_member: int) -> AbstractContextManager[None]:
        """Raise: nothing runs here."""
        raise NotImplementedError("the small space has no layers")

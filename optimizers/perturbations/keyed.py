"""What every kind of noise shares: its key, who is whose mirror image, and the members of the batch in progress.

Shapes: N draws (antithetic pairs, or members), P members.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

import torch
from torch import Tensor

from evotext.protocols import MemberNoise, ParameterSpec, PerturbableNetwork

# Numbers drawn at once: bounds the float32 scratch memory of a draw whose result is kept in a smaller type.
DRAW_NUMBERS = 1 << 24

Members = TypeVar("Members", bound=MemberNoise)


class KeyedNoise(ABC, Generic[Members]):
    """One generation's `PopulationNoise`. vectors: whether biases and norm scales are perturbed."""

    def __init__(
        self,
        network: PerturbableNetwork,
        *,
        vectors: bool,
        seed: int,
        generation: int,
        population: int,
        antithetic: bool,
        sigma: float,
    ) -> None:
        assert not (antithetic and population % 2), population
        self._network = network
        self._specs: dict[str, ParameterSpec] = {
            name: spec for name, spec in network.parameters.items() if vectors or spec.kind != "vector"
        }
        self._key = seed, generation
        self._population = population
        self._fold = 2 if antithetic else 1
        self._sigma = sigma
        self._last: tuple[tuple[int, ...], Members] | None = None

    def active(self, members: Sequence[int], rows_per_member: int) -> AbstractContextManager[None]:
        """See `PopulationNoise.active`."""
        return self._network.active(self.for_members(members), rows_per_member)

    def for_members(self, members: Sequence[int]) -> Members:
        """See `PopulationNoise.for_members`; the same object while the members stay the same."""
        key = tuple(members)
        assert all(0 <= member < self._population for member in key), key
        if self._last is None or self._last[0] != key:
            self._last = None  # frees the last batch's noise before the next one's is made
            self._last = key, self._select(key)
        return self._last[1]

    @abstractmethod
    def combine(self, weight_P: Tensor) -> Iterator[tuple[str, Tensor]]:
        """See `PopulationNoise.combine`."""

    @abstractmethod
    def _select(self, members: tuple[int, ...]) -> Members:
        """The noise of these members."""

    @property
    def _draws(self) -> int:
        """N."""
        return self._population // self._fold

    def _signs(self, members: Sequence[int]) -> Tensor:
        """+1 or -1 for each member, float64."""
        return torch.tensor([1 - 2 * (member % self._fold) for member in members], dtype=torch.float64)

    def _whole_pairs(self, members: tuple[int, ...]) -> slice | None:
        """The draws of these members if they are whole pairs in order, so that both can read one draw; else None."""
        in_order = members == tuple(range(members[0], members[0] + len(members)))
        if not in_order or members[0] % self._fold or len(members) % self._fold:
            return None
        return slice(members[0] // self._fold, (members[-1] + 1) // self._fold)

    def _weigh_draws(self, weight_P: Tensor) -> tuple[Tensor, slice]:
        """The members' weights as weights of the draws, and the draws between the first and the last that count."""
        assert weight_P.shape == (self._population,), weight_P.shape
        weight_N = weight_P[0::2] - weight_P[1::2] if self._fold == 2 else weight_P
        used = weight_N.nonzero().flatten().tolist() or [0]
        return weight_N, slice(used[0], used[-1] + 1)

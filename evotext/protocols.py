"""The extension points. A class that has these methods plugs in; nothing is to be inherited from.

Shape suffixes: P population members, K rows a member, T tokens, O outputs, I inputs, E experts, D embedding width, N a vector's
size.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

if TYPE_CHECKING:
    from evotext.models.language_model import LanguageModel
    from evotext.types import RolloutPlan, Trajectories, UpdateReport


class Algorithm(Protocol):
    """Decides which episodes to run and turns their returns into new weights.

    The constructor takes and checks hyperparameters only and is cheap; `start` comes once, before everything else.
    """

    def start(self, model: "LanguageModel", seed: int) -> None:
        """Take the model to tune (its weights are changed in place by `tell`) and the run's seed; build all state."""

    def ask(self, generation: int) -> "RolloutPlan":
        """The episodes of this generation (counted from 0): a pure function of seed, generation and weights."""

    def tell(self, batch: "Trajectories") -> "UpdateReport":
        """Update the weights from the episodes that the last `ask` planned."""

    def state_dict(self) -> dict[str, object]:
        """All state besides the weights, as tensors, numbers, strings and containers of them."""

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Undo `state_dict`."""


@dataclass(frozen=True, kw_only=True)
class ParameterSpec:
    """A parameter that a perturbation may move, in the layout (O, I) whatever the layer stores."""

    kind: Literal["matrix", "vector", "experts"]
    """`matrix`: linear layers, embeddings and heads (an embedding is V x D). `vector`: biases and norm scales.
    `experts`: the matrices of a mixture's experts, one for each."""
    shape: tuple[int, ...]
    """(O, I) of a matrix, (N,) of a vector, (E, O, I) of E experts."""
    index: int
    """Position in the model's sorted list of parameters, excluded ones counted: part of the noise's key."""
    dtype: torch.dtype
    """Type of the stored weights; noise is drawn in float32 and cast to it."""
    device: torch.device
    """Where the weights live."""


class MemberNoise(Protocol):
    """The noise of the members of one batch of rows, times sigma. Rows come as (P, K): K rows of each of P members.

    K counts positions: a row of T tokens comes as T of them, next to each other.
    """

    @property
    def count(self) -> int:
        """P, the number of members."""

    def linear(self, name: str, x_PKI: Tensor, start: Tensor | None = None) -> Tensor:
        """A new contiguous (P, K, O): sigma * x E^T, E being the member's noise for the matrix `name`, plus `start`.

        start: (O,), or (P, 1, O) for one a member; what a layer's bias is.
        """

    def linear_together(
        self, names: Sequence[str], x_PKI: Tensor, starts: Sequence[Tensor | None]
    ) -> Sequence[Tensor]:
        """Return `linear` of each of these matrices, which read the same input, as queries, keys and values do."""

    def experts(self, name: str, expert_PK: Tensor, x_PKI: Tensor) -> Tensor | None:
        """Return a new (P, K, O): sigma * x E_e^T, e being the position's expert, 0 <= e < E; None where experts stay."""

    def add_to_embedding(self, name: str, ids_PK: Tensor, y_PKD: Tensor) -> None:
        """Add row `ids` of sigma * E to y in place."""

    def vector(self, name: str) -> Tensor | None:
        """sigma * e for the vector `name`, shape (P, N); None where vectors are frozen."""


class PerturbableNetwork(Protocol):
    """A network whose layers can add a population's noise (`evotext.models.perturbed.PerturbedNetwork`)."""

    @property
    def parameters(self) -> Mapping[str, ParameterSpec]:
        """Every parameter that may be perturbed, by its name, sorted."""

    def active(self, noise: MemberNoise, rows_per_member: int) -> AbstractContextManager[None]:
        """Within it, each row of the network's batches, ordered by member, runs as its member."""


class PopulationNoise(Protocol):
    """One generation's noise for a whole population: a pure function of its key, never of how it is chunked."""

    def active(self, members: Sequence[int], rows_per_member: int) -> AbstractContextManager[None]:
        """Within it the network runs batches of len(members) x rows_per_member rows, ordered by member, perturbed.

        Members may be any subset of the population in any order. Entering again with the same arguments is cheap.
        """

    def for_members(self, members: Sequence[int]) -> MemberNoise:
        """The noise of these members, in this order."""

    def combine(self, weight_P: Tensor) -> Iterator[tuple[str, Tensor]]:
        """For each perturbed parameter, by name in sorted order, sum_p weight_p E_p (unit noise, no sigma).

        weight_P covers the whole population. Layout of `ParameterSpec`; float32, or float64 where the weights are.
        """

    @property
    def combine_flops(self) -> float:
        """Floating-point operations of one `combine`."""

    @property
    def flops_by_matrix(self) -> Mapping[str, float]:
        """What the noise of each matrix adds to a forward pass, in operations at each position that goes through its layer.

        Of experts: at each position and for each of its experts.
        """


@runtime_checkable
class Perturbation(Protocol):
    """How a population's noise is shaped: low rank, full rank, ..."""

    def draw(
        self,
        network: PerturbableNetwork,
        *,
        seed: int,
        generation: int,
        population: int,
        antithetic: bool,
        sigma: float,
    ) -> PopulationNoise:
        """The noise of one generation. Antithetic: members 2i and 2i + 1 share one draw with signs + and -."""


class Tracker(Protocol):
    """Where figures go while a run goes on."""

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """One generation or one evaluation; `generation`, `episodes`, `generated_tokens`, `seconds` are always there."""

    def log_transcripts(self, generation: int, texts: Sequence[str]) -> None:
        """A few sample episodes as readable text."""

    def close(self) -> None:
        """Write out everything; nothing is logged afterwards."""

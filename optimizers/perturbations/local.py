"""Local noise: each position's perturbation of a matrix lies along what it reads there.

The gradient of a linear layer at one position is an outer product with its input, G = y' x^T. Noise in all directions mostly
moves what the position does not feel and others do; here the only direction is the position's own:

    matrix      E = a b^T,  b = x / |x|,  a (O,) standard normal;  forward  x (W + sigma E)^T = x W^T + sigma |x| a
    embedding   reads a one-hot vector: the row of its token gets standard normal noise, as wide as the row
    vectors, a mixture's experts    stay

    E[(G . E) E] = G: nothing is lost, and the noise has O dimensions in place of O I

A tied embedding and head get noise of their own in each use, whose estimates add up.
It is weight perturbation at one position and known elsewhere as node perturbation; a member's noise is of one use only, so
that members score single tokens (`optimizers/shared_context.py`) and cannot act. Inputs are kept as they are read: b is
no part of the noise's key, but what the member read. Processes exchange sums of the weights' size.

Shapes: N draws (antithetic pairs, or members), P members of a batch, K positions a member (1), O outputs, I inputs (an
embedding is O = V by I = D).
"""

from collections.abc import Container, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from evotext.distributed import collectives
from evotext.keys.philox import Purpose, many_normals, stream_id
from evotext.noise import NoiseKey, ParameterSpec, PerturbableNetwork
from evotext.validation import checked_record


@checked_record
class Local:
    """The `Perturbation` of members that score single tokens."""

    def moves(self, spec: ParameterSpec) -> bool:
        """Return True for matrices."""
        return spec.kind == "matrix"

    def draw(self, network: PerturbableNetwork, key: NoiseKey) -> "LocalNoise":
        """Return the noise of one generation."""
        return LocalNoise(network, key, {name: s for name, s in network.parameters.items() if self.moves(s)})


class LocalNoise:
    """One generation's `PopulationNoise`, which keeps what its members have read. specs: the matrices that it moves."""

    def __init__(self, network: PerturbableNetwork, key: NoiseKey, specs: dict[str, ParameterSpec]) -> None:
        self._network, self._key, self._specs = network, key, specs
        self._batches: list[LocalMembers] = []

    def active(self, members: Sequence[int], rows_per_member: int) -> AbstractContextManager[None]:
        """Run the network perturbed within it, one position a member (`ForwardNoise`)."""
        assert rows_per_member == 1, "each row has noise of its own"
        return self._network.active(self.for_members(members), rows_per_member)

    def for_members(self, members: Sequence[int]) -> "LocalMembers":
        """Return the noise of these members for one pass (`ForwardNoise`). What they read in earlier ones is forgotten."""
        kept = [batch for batch in self._batches if batch.without(members)]
        self._batches = [*kept, LocalMembers(self._specs, self._key, members)]
        return self._batches[-1]

    def combine(self, weight_P: Tensor, names: Container[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Yield sum_p w_p E_p of each parameter, over the members of all processes (`UpdateNoise`)."""
        for name, spec in self._specs.items():
            if names is not None and name not in names:
                continue
            dtype = torch.promote_types(spec.dtype, torch.float32)
            total_OI = torch.zeros(spec.shape, dtype=dtype, device=spec.device)
            for batch in self._batches:
                batch.add_to(total_OI, name, weight_P)
            sum_OI = total_OI.cpu()
            collectives.all_reduce([sum_OI])
            yield name, sum_OI.to(spec.device)

    @property
    def combine_flops(self) -> float:
        """Floating-point operations of one `combine`."""
        return 2.0 * self._key.population * sum(spec.shape[0] * spec.shape[1] for spec in self._specs.values())

    @property
    def flops_by_matrix(self) -> dict[str, float]:
        """Operations a position that the noise of each matrix adds: the length of its input, and a times it."""
        return {name: 2.0 * sum(spec.shape) for name, spec in self._specs.items()}


class LocalMembers:
    """The `MemberNoise` of one batch, one position a member, and what it has read."""

    def __init__(self, specs: dict[str, ParameterSpec], key: NoiseKey, members: Sequence[int]) -> None:
        self.count = len(members)
        self._specs, self._key, self._members = specs, key, torch.tensor(members)
        self._counts_P = torch.ones(self.count, dtype=torch.float64)
        outputs = [spec.shape[0] for spec in specs.values()]
        drawn = self._draw(next(iter(specs.values())), key.draws_of(members), sum(outputs))
        self._a_PO = dict(zip(specs, drawn.split(outputs, dim=1), strict=True))
        self._b_PI: dict[str, Tensor] = {}
        self._rows: dict[str, tuple[Tensor, Tensor]] = {}

    def linear(self, name: str, x_PKI: Tensor, start: Tensor | None = None) -> Tensor:
        """Return sigma |x| a plus the start (`MemberNoise`)."""
        assert x_PKI.shape[1] == 1, "a member's noise is of one position"
        size_P11 = torch.linalg.vector_norm(x_PKI, dim=-1, keepdim=True)
        self._b_PI[name] = (x_PKI / size_P11.clamp(min=torch.finfo(x_PKI.dtype).tiny))[:, 0]
        y_P1O = self._key.sigma_of(name) * size_P11 * self._a_PO[name][:, None].to(x_PKI.dtype)
        return y_P1O if start is None else y_P1O.add_(start)

    def linear_together(self, names: Sequence[str], x_PKI: Tensor, starts: Sequence[Tensor | None]) -> Sequence[Tensor]:
        """Return `linear` of each matrix."""
        return [self.linear(name, x_PKI, start) for name, start in zip(names, starts, strict=True)]

    def experts(self, name: str, expert_PK: Tensor, x_PKI: Tensor) -> None:
        """Return None: experts stay."""

    def add_to_embedding(self, name: str, ids_PK: Tensor, y_PKD: Tensor) -> None:
        """Add sigma times the noise of each token's row to y in place."""
        # Draws of numbers that no member has, so that they are not those of the head which an embedding may be, too.
        draw_P = self._key.draws + self._key.draws_of(self._members.tolist())
        row_PD = self._draw(self._specs[name], draw_P, self._specs[name].shape[1])
        self._rows[name] = ids_PK[:, 0], row_PD
        y_PKD.add_(self._key.sigma_of(name) * row_PD[:, None].to(y_PKD.dtype))

    def vector(self, name: str) -> None:
        """Return None: vectors stay."""

    def without(self, members: Sequence[int]) -> bool:
        """Forget these members; return whether any is left."""
        self._counts_P[torch.isin(self._members, torch.tensor(members))] = 0.0
        return bool(self._counts_P.any())

    def add_to(self, total_OI: Tensor, name: str, weight_P: Tensor) -> None:
        """Add w_p E_p of each member of the batch."""
        weight_P1 = (weight_P[self._members] * self._counts_P).to(total_OI)[:, None]
        if name in self._b_PI:
            total_OI.addmm_((self._a_PO[name].to(total_OI) * weight_P1).T, self._b_PI[name].to(total_OI))
        if name in self._rows:
            ids_P, row_PD = self._rows[name]
            total_OI.index_add_(0, ids_P, row_PD.to(total_OI) * weight_P1)

    def _draw(self, spec: ParameterSpec, draw_P: Tensor, count: int) -> Tensor:
        """Return standard normals with each member's sign, (P, count), from the stream of this parameter."""
        key, stream = self._key, stream_id(Purpose.WEIGHT_NOISE, spec.index)
        own_D, at_P = draw_P.unique(return_inverse=True)
        numbers_DC = many_normals(key.seed, stream, key.generation, own_D, count, spec.device)
        return numbers_DC[at_P.to(spec.device)] * key.signs_of(self._members.tolist()).to(numbers_DC)[:, None]

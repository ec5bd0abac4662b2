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
no part of the noise's key, but what the member read, which processes exchange. a is drawn for the batch that runs, and once
more for the sum, one matrix at a time: of all members and matrices it would be most of a small model's memory.

Shapes: N draws (antithetic pairs, or members), P members of a batch, K positions a member (1), O outputs, I inputs (an
embedding is O = V by I = D).
"""

from collections.abc import Container, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor

from evotext.distributed import collectives
from evotext.keys.philox import Purpose, many_normals, stream_id
from evotext.noise import FromStart, NoiseKey, ParameterSpec, PerturbableNetwork
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
    """One generation's `PopulationNoise`, and what its members have read. specs: the matrices that it moves."""

    def __init__(self, network: PerturbableNetwork, key: NoiseKey, specs: dict[str, ParameterSpec]) -> None:
        self._network, self.key, self.specs = network, key, specs
        self.reader: dict[str, str] = {}
        """The matrix under whose name each one's directions are: the first of those that read one input."""
        self.b_PI: dict[str, Tensor] = {}
        """The directions of each reader's members; 0 of those that another process runs, or none yet."""
        self.row_P: dict[str, Tensor] = {}
        """The row of an embedding that each member reads, counted from 1; 0 where there is none yet."""
        self._whole = False

    def active(self, members: Sequence[int], rows_per_member: int) -> AbstractContextManager[None]:
        """Run the network perturbed within it, one position a member (`ForwardNoise`)."""
        assert rows_per_member == 1, "each row has noise of its own"
        return self._network.active(self.for_members(members), rows_per_member)

    def for_members(self, members: Sequence[int]) -> "LocalMembers":
        """Return the noise of these members (`ForwardNoise`)."""
        return LocalMembers(self, members)

    def drawn(self, name: str, draw_N: Tensor, *, rows: bool = False) -> Tensor:
        """Return a of these draws, (N, O), or with `rows` the noise of an embedding's row, (N, I)."""
        key, spec = self.key, self.specs[name]
        # Rows have numbers of draws that nobody has: not those of the head which an embedding may be, too.
        index_N, stream = draw_N + key.draws * rows, stream_id(Purpose.WEIGHT_NOISE, spec.index)
        return many_normals(key.seed, stream, key.generation, index_N, spec.shape[rows], spec.device).to(spec.dtype)

    def combine(self, weight_P: Tensor, names: Container[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Yield sum_p w_p E_p of each parameter, over the members of all processes (`UpdateNoise`)."""
        self._exchange()
        used = weight_P.nonzero().flatten().tolist() or [0]
        some = range(used[0], used[-1] + 1)
        draw_C, sign_C = self.key.draws_of(some), self.key.signs_of(some)
        for name, spec in self.specs.items():
            if names is not None and name not in names:
                continue
            dtype = torch.promote_types(spec.dtype, torch.float32)
            total_OI = torch.zeros(spec.shape, dtype=dtype, device=spec.device)
            weight_C1 = (weight_P[some.start : some.stop] * sign_C)[:, None].to(total_OI)
            if name in self.reader:
                b_CI = self.b_PI[self.reader[name]][some.start : some.stop].to(dtype)
                total_OI += self.drawn(name, draw_C).to(dtype).mul_(weight_C1).T @ b_CI
            if name in self.row_P:
                row_C = self.row_P[name][some.start : some.stop] - 1
                total_OI.index_add_(0, row_C, self.drawn(name, draw_C, rows=True).to(dtype).mul_(weight_C1))
            yield name, total_OI

    @property
    def combine_flops(self) -> float:
        """Floating-point operations of one `combine`."""
        return 2.0 * self.key.population * sum(spec.shape[0] * spec.shape[1] for spec in self.specs.values())

    @property
    def flops_by_matrix(self) -> dict[str, float]:
        """Operations a position that the noise of each matrix adds: the length of its input, and a times it."""
        return {name: 2.0 * sum(spec.shape) for name, spec in self.specs.items()}

    def _exchange(self) -> None:
        """Give all processes what the members of each have read."""
        if self._whole or collectives.world_size() == 1:
            return
        self._whole = True
        named = collectives.all_names(f"{name} {reader}" for name, reader in self.reader.items())
        self.reader = dict(each.split(" ") for each in sorted(named))
        for table in (self.b_PI, self.row_P):
            for name in sorted(collectives.all_names(table)):
                spec = self.specs[name]
                mine = table.get(name, self.empty(name) if table is self.b_PI else self.no_rows(name)).cpu()
                collectives.all_reduce([mine])
                table[name] = mine.to(spec.device)

    def empty(self, name: str) -> Tensor:
        """Return directions that nobody has filled in."""
        spec = self.specs[name]
        return torch.zeros(self.key.population, spec.shape[1], dtype=spec.dtype, device=spec.device)

    def no_rows(self, name: str) -> Tensor:
        """Return rows that nobody has filled in."""
        return torch.zeros(self.key.population, dtype=torch.int64, device=self.specs[name].device)


class LocalMembers:
    """The `MemberNoise` of one batch, one position a member, which notes what it reads."""

    def __init__(self, noise: LocalNoise, members: Sequence[int]) -> None:
        self.count, self._noise = len(members), noise
        self._members = torch.tensor(members)
        self._draw_N, self._place_P = noise.key.draws_of(members).unique(return_inverse=True)
        self._sign_P = noise.key.signs_of(members)

    def linear(self, name: str, x_PKI: Tensor, start: Tensor | None = None) -> Tensor:
        """Return sigma |x| a plus the start (`MemberNoise`)."""
        return self._at_length(name, self._read((name,), x_PKI), start)

    def linear_together(self, names: Sequence[str], x_PKI: Tensor) -> Sequence[FromStart]:
        """Return `linear` of each matrix by its start."""
        size_P11 = self._read(names, x_PKI)
        return [partial(self._at_length, name, size_P11) for name in names]

    def experts(self, name: str, expert_PK: Tensor, x_PKI: Tensor) -> None:
        """Return None: experts stay."""

    def add_to_embedding(self, name: str, ids_PK: Tensor, y_PKD: Tensor) -> None:
        """Add sigma times the noise of each token's row to y in place."""
        if name not in self._noise.row_P:
            self._noise.row_P[name] = self._noise.no_rows(name)
        table = self._noise.row_P[name]
        table[self._members.to(table.device)] = ids_PK[:, 0] + 1
        y_PKD.add_(self._scaled(name, rows=True))

    def vector(self, name: str) -> None:
        """Return None: vectors stay."""

    def _read(self, names: Sequence[str], x_PKI: Tensor) -> Tensor:
        """Note the direction of what these matrices read; return its length, (P, 1, 1)."""
        assert x_PKI.shape[1] == 1, "a member's noise is of one position"
        noise, first = self._noise, names[0]
        noise.reader |= dict.fromkeys(names, first)
        size_P11 = torch.linalg.vector_norm(x_PKI, dim=-1, keepdim=True)
        if first not in noise.b_PI:
            noise.b_PI[first] = noise.empty(first)
        table = noise.b_PI[first]
        table[self._members.to(table.device)] = (x_PKI / size_P11.clamp(min=torch.finfo(x_PKI.dtype).tiny))[:, 0]
        return size_P11

    def _at_length(self, name: str, size_P11: Tensor, start: Tensor | None) -> Tensor:
        """Return sigma |x| a plus the start."""
        y_P1O = self._scaled(name).mul_(size_P11)
        return y_P1O if start is None else y_P1O.add_(start)

    def _scaled(self, name: str, *, rows: bool = False) -> Tensor:
        """Return each member's own, (P, 1, O), with its sign, times sigma."""
        drawn_NO = self._noise.drawn(name, self._draw_N, rows=rows)
        scale_P = (self._noise.key.sigma_of(name) * self._sign_P).to(drawn_NO)
        return drawn_NO[self._place_P.to(drawn_NO.device)].mul_(scale_P[:, None])[:, None]

"""The parts of a model's parameters that this process holds, where several processes hold the model together.

Shapes: those of the whole parameter, of which one dimension is divided.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evotext.distributed import collectives
from evotext.distributed.tensor_group import TensorGroup


@dataclass(frozen=True, kw_only=True)
class Part:
    """Entries `start` to `stop` of a parameter's dimension `dim`, whose size is `size`.

    dim: None for what one process adds to a sum, as a bias after a row-parallel product: the first process of a group holds
    all entries, the others zeros in their place (start = stop).
    """

    dim: int | None
    start: int
    stop: int
    size: int

    def of(self, whole: Tensor, *, first: int = 0) -> Tensor:
        """Return this part of the whole. first: dimensions that the tensor has in front of the parameter's."""
        if self.dim is not None:
            return whole.narrow(first + self.dim, self.start, self.stop - self.start)
        return whole if self.stop > self.start else torch.zeros_like(whole)

    def whole_shape(self, shape: Iterable[int]) -> tuple[int, ...]:
        """Return the shape of the whole. shape: the part's."""
        return tuple(self.size if dim == self.dim else size for dim, size in enumerate(shape))


class Parts:
    """The divided parameters of a network by name; of all others, each process of the group holds the whole."""

    def __init__(self, group: TensorGroup | None = None, of: Mapping[str, Part] | None = None) -> None:
        self.group = group or TensorGroup()
        self._of = dict(of or {})

    @property
    def divided(self) -> bool:
        """Whether there are any others who hold parts of the model."""
        return self.group.size > 1

    def get(self, name: str) -> Part | None:
        """Return the part of this parameter; None if the process holds all of it."""
        return self._of.get(name)

    def own(self, name: str, whole: Tensor) -> Tensor:
        """Return this process's part of a tensor that has the parameter's shape."""
        part = self._of.get(name)
        return whole if part is None else part.of(whole)

    def whole_shape(self, name: str, own: Tensor) -> tuple[int, ...]:
        """Return the shape of the whole parameter."""
        part = self._of.get(name)
        return tuple(own.shape) if part is None else part.whole_shape(own.shape)

    def whole(self, name: str, own: Tensor) -> Tensor:
        """Return the whole tensor in process 0, on the CPU, whose memory may hold more than a device's; elsewhere `own`.

        It is put together from those of the group, all of whose processes call it.
        """
        part, own = self._of.get(name), own.detach()
        if part is None:
            return own
        joined = self.group.all_reduce(own.clone()) if part.dim is None else self.group.join(own, part.size, part.dim)
        return joined.cpu().contiguous() if collectives.rank() == 0 else own

    def total_of_each(self, by_name: Mapping[str, float]) -> dict[str, float]:
        """Return the sum of the group's numbers for each parameter that is divided, and the own number for the others."""
        if not self.divided:
            return dict(by_name)
        own = [number if name in self._of or self.group.rank == 0 else 0.0 for name, number in by_name.items()]
        summed = self.group.all_reduce(torch.tensor(own, dtype=torch.float64))
        return dict(zip(by_name, summed.tolist(), strict=True))

    def totals(self, by_name: Mapping[str, Sequence[float]]) -> list[float]:
        """Return each column's sum over the parameters of the whole model."""
        columns = [dict(zip(by_name, column, strict=True)) for column in zip(*by_name.values(), strict=True)]
        return [sum(self.total_of_each(column).values()) for column in columns]

    def all_agree(self, flag: bool) -> bool:
        """Return whether all processes of the group say so."""
        return not float(self.group.all_reduce(torch.tensor([float(not flag)])))

"""Processes that hold one model together, each a part of its weights, and what they exchange within a forward pass.

A run of N processes with groups of T has N / T of them, each of T consecutive processes, so that a group stays within a
machine. A group runs its share of the rows as one process would; groups exchange what processes exchange otherwise.

Shapes: T processes of the group, D the last dimension of what they compute.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from evotext.distributed import collectives


class TensorGroup:
    """The group of this process. size: T. rank: the process's number within it.

    group: torch's; None for a group of one, which exchanges nothing.
    """

    def __init__(self, size: int = 1, rank: int = 0, group: dist.ProcessGroup | None = None) -> None:
        self.size, self.rank, self._group = size, rank, group
        # The number of its first process in the run.
        self._first = collectives.rank() - rank

    @classmethod
    def of(cls, size: int) -> "TensorGroup":
        """Return this process's group; the run's rows are shared by groups from then on. Every process calls it.

        Raise ValueError for groups that do not make up the run.
        """
        processes = collectives.world_size()
        check_size(size, processes)
        collectives.share_by_groups(size)
        if size == 1:
            return cls()
        groups = [dist.new_group(list(range(first, first + size))) for first in range(0, processes, size)]
        return cls(size, collectives.rank() % size, groups[collectives.rank() // size])

    def bounds(self, count: int) -> tuple[int, int]:
        """Return where this process's share of `count` entries begins and ends; the last process may have fewer."""
        chunk = self._chunk(count)
        return min(self.rank * chunk, count), min((self.rank + 1) * chunk, count)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Replace the tensor by the sum of all, which is the same on all to the last bit, and return it."""
        if self._group is not None:
            collectives.count_sent(tensor)
            dist.all_reduce(tensor, group=self._group)
        return tensor

    def join(self, part: Tensor, count: int, dim: int = -1) -> Tensor:
        """Return what the processes hold of `count` entries (`bounds`), one after another along `dim`."""
        if self._group is None:
            return part
        front = part.transpose(dim, -1)
        own = F.pad(front, (0, self._chunk(count) - front.shape[-1])).contiguous()
        collectives.count_sent(own)
        parts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(parts, own, group=self._group)
        return torch.cat(parts, dim=-1)[..., :count].transpose(dim, -1)

    def of_first(self, tensor: Tensor) -> Tensor:
        """Return the first process's values, in place; every process passes a tensor of the same shape and type."""
        if self._group is not None:
            collectives.count_sent(tensor)
            dist.broadcast(tensor, self._first, group=self._group)
        return tensor

    def text_of_first(self, text: str) -> str:
        """Return the first process's text, which is not empty; what the others pass is ignored."""
        if self._group is None:
            return text
        size = int(self.of_first(torch.tensor([len(text.encode())])))
        data = bytearray(text.encode() if self.rank == 0 else size)
        return bytes(self.of_first(torch.frombuffer(data, dtype=torch.uint8)).numpy()).decode()

    def _chunk(self, count: int) -> int:
        return -(-count // self.size)


def check_size(size: int, processes: int) -> None:
    """Raise ValueError unless groups of this size make up the run."""
    if processes % size:
        raise ValueError(
            f"parallel_size: expected a divisor of the run's {processes} processes (torchrun --nproc-per-node), got {size}"
        )

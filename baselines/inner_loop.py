"""Minibatches, micro-batches and metrics of optimizer steps on one batch of rollouts.

The batch rule: all rows of a generation are shuffled into `minibatches` parts, each part is one optimizer step, and a
part is computed in micro-batches of at most `micro_rows` rows whose gradients add up. The loss is a weighted sum with
weights of the whole part, so the gradient does not depend on the size of the micro-batches. Each of several processes
computes its share of the micro-batches; gradients and metrics are added up. A micro-batch that does not fit the memory is
run in two, and so from then on.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from evotext.distributed import collectives
from evotext.keys.philox import Purpose, stream_id, uniform
from evotext.models.out_of_memory import FittingRows


def minibatches(rows: int, count: int, *, seed: int, generation: int, epoch: int) -> tuple[Tensor, ...]:
    """Return the row numbers of each minibatch: a shuffle that is a pure function of its key, or all rows for one part."""
    if count == 1:
        return (torch.arange(rows),)
    key = uniform(seed, stream_id(Purpose.SHUFFLING, epoch), generation, torch.arange(rows), 1)[:, 0]
    return key.argsort().tensor_split(count)


def micro_batches(row_K: Tensor, length_B: Tensor, micro_rows: int) -> Iterator[Tensor]:
    """Yield this process's share of the parts of at most `micro_rows` rows, of like length to save padding."""
    by_length_K = row_K[length_B[row_K].argsort(stable=True)]
    even = -(-len(row_K) // collectives.world_size())
    yield from collectives.own_share(by_length_K.split(max(1, min(micro_rows, even))))


class MicroBatches:
    """Runs rows a part at a time, in smaller parts where the memory does not hold them.

    rows: greatest number of rows in a part. in_step: every process runs as many parts, some of them without a row, as it has
    to where the weights are divided; memory that runs out is an error then.
    """

    def __init__(self, rows: int, *, in_step: bool = False) -> None:
        self.fitting, self._in_step = FittingRows(rows), in_step

    def run(
        self,
        row_K: Tensor,
        length_B: Tensor,
        work: Callable[[Tensor], float | None],
        figures: "Figures",
        forget: Callable[[], None] = lambda: None,
    ) -> float:
        """Do the work on this process's share of the rows, each row once; return the sum of what it returned.

        If the memory runs out, all of it begins again in smaller parts: metrics that the work has counted are taken
        back, and `forget` drops whatever else it has added up.
        """
        back = figures.marked()
        while (total := self._attempt(row_K, length_B, work)) is None:
            back()
            forget()
        return total

    def notes(self) -> tuple[str, ...]:
        """Return a line for the user if parts have become smaller since the last call."""
        now, most = self.fitting.now, self.fitting.most
        line = f"out of memory: micro-batches have {now} rows from here on (micro_rows={most})"
        return (line,) if self.fitting.shrunk() else ()

    def _attempt(self, row_K: Tensor, length_B: Tensor, work: Callable[[Tensor], float | None]) -> float | None:
        """Return the sum of what the work returned; None if the memory did not hold some part."""
        total = 0.0
        if self._in_step:
            parts = list(micro_batches(row_K, length_B, self.fitting.most))
            most = int(collectives.all_gather(torch.tensor([len(parts)])).max())
            return sum(_share(work, part_K) for part_K in parts + [row_K[:0]] * (most - len(parts)))
        for part_K in micro_batches(row_K, length_B, self.fitting.most):
            for some_K in part_K.split(self.fitting.now):
                done = self.fitting.attempt(len(some_K), partial(_share, work, some_K), row_K.device)
                if done is None:
                    return None
                total += done
        return total


def _share(work: Callable[[Tensor], float | None], some_K: Tensor) -> float:
    return work(some_K) or 0.0


class Figures:
    """Means over parts of different weight, and maxima, of all processes."""

    def __init__(self) -> None:
        self._sum: dict[str, float] = {}
        self._weight: dict[str, float] = {}
        self._largest: dict[str, float] = {}

    def mean(self, figures: Iterable[tuple[str, float]], weight: float) -> None:
        """Count these figures `weight` times; those of no weight, which need not be numbers, not at all."""
        if not weight:
            return
        for name, value in figures:
            self._sum[name] = self._sum.get(name, 0.0) + weight * value
            self._weight[name] = self._weight.get(name, 0.0) + weight

    def largest(self, name: str, value: float) -> None:
        """Keep the greatest value seen."""
        self._largest[name] = max(value, self._largest.get(name, value))

    def marked(self) -> Callable[[], None]:
        """Return a function that brings the metrics back to their present values."""
        kept = [dict(values) for values in (self._sum, self._weight, self._largest)]

        def back() -> None:
            self._sum, self._weight, self._largest = (dict(values) for values in kept)

        return back

    def result(self) -> dict[str, float]:
        """Return every metric's mean or maximum. Each process calls it, once."""
        names = collectives.all_names([*self._sum, *self._largest])
        sums = torch.tensor([[self._sum.get(n, 0.0), self._weight.get(n, 0.0)] for n in names], dtype=torch.float64)
        collectives.all_reduce([sums])
        means = {n: total / weight for n, (total, weight) in zip(names, sums.tolist(), strict=True) if weight}
        largest = torch.tensor([self._largest.get(n, -torch.inf) for n in names], dtype=torch.float64)
        greatest = collectives.all_gather(largest).amax(0)
        return means | {n: v for n, v in zip(names, greatest.tolist(), strict=True) if v != -torch.inf}

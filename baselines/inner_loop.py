"""From one batch of rollouts to optimizer steps: minibatches, micro-batches, figures.

The batch rule: all rows of a generation are shuffled into `minibatches` parts, each part is one optimizer step, and a
part is computed in micro-batches of at most `micro_rows` rows whose gradients add up. The loss is a weighted sum with
weights of the whole part, so the gradient does not depend on the size of the micro-batches. Of several processes each
computes its share of the micro-batches; gradients and figures are added up.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from evotext import processes
from evotext.philox import Purpose, stream_id, uniform


def minibatches(rows: int, count: int, *, seed: int, generation: int, epoch: int) -> tuple[Tensor, ...]:
    """Row numbers of each minibatch: a shuffle that is a pure function of its key, or all rows if there is one part."""
    if count == 1:
        return (torch.arange(rows),)
    key = uniform(seed, stream_id(Purpose.SHUFFLING, epoch), generation, torch.arange(rows), 1)[:, 0]
    return key.argsort().tensor_split(count)


def micro_batches(row_K: Tensor, length_B: Tensor, micro_rows: int) -> Iterator[Tensor]:
    """Own share of the parts of at most `micro_rows` rows, of like length so that little padding is computed."""
    by_length_K = row_K[length_B[row_K].argsort(stable=True)]
    even = -(-len(row_K) // processes.count())
    yield from processes.own_share(by_length_K.split(max(1, min(micro_rows, even))))


class Figures:
    """Means over parts of different weight, and maxima, of all processes."""

    def __init__(self) -> None:
        self._sum: dict[str, float] = {}
        self._weight: dict[str, float] = {}
        self._largest: dict[str, float] = {}

    def mean(self, figures: Iterable[tuple[str, float]], weight: float) -> None:
        """Count these figures `weight` times."""
        for name, value in figures:
            self._sum[name] = self._sum.get(name, 0.0) + weight * value
            self._weight[name] = self._weight.get(name, 0.0) + weight

    def largest(self, name: str, value: float) -> None:
        """Keep the greatest value seen."""
        self._largest[name] = max(value, self._largest.get(name, value))

    def result(self) -> dict[str, float]:
        """Every figure's mean or maximum. Each process asks for it, once."""
        names = processes.all_names([*self._sum, *self._largest])
        sums = torch.tensor([[self._sum.get(n, 0.0), self._weight.get(n, 0.0)] for n in names], dtype=torch.float64)
        processes.add_up([sums])
        means = {n: total / weight for n, (total, weight) in zip(names, sums.tolist(), strict=True) if weight}
        largest = torch.tensor([self._largest.get(n, -torch.inf) for n in names], dtype=torch.float64)
        greatest = processes.gather(largest).amax(0)
        return means | {n: v for n, v in zip(names, greatest.tolist(), strict=True) if v != -torch.inf}

"""The sum of a population's noise, weighted, and how much of it is signal.

Shapes: P members.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from evotext.distributed.parts import Parts


class PseudoGradient:
    """scale * sum_p w_p E_p of each parameter, to be gone through once; after that its figures are known.

    combine: of an `UpdateNoise`. The two halves of the population are combined apart: their cosine is the signal to noise.
    parts: of the parameters that this process holds; its figures are of the whole.
    """

    def __init__(
        self,
        combine: Callable[[Tensor], Iterator[tuple[str, Tensor]]],
        weight_P: Tensor,
        scale: float,
        parts: Parts | None = None,
    ) -> None:
        half = len(weight_P) // 4 * 2 or len(weight_P)
        self._first_P, self._second_P = weight_P.clone(), weight_P.clone()
        self._first_P[half:] = 0
        self._second_P[:half] = 0
        self._combine, self._scale, self._parts = combine, scale, parts or Parts()
        self._sums: dict[str, tuple[float, ...]] = {}

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter's name and direction, which is given away."""
        others = self._combine(self._second_P)
        for name, first in self._combine(self._first_P):
            _, second = next(others)
            dot = float(torch.dot(first.flatten(), second.flatten()))
            halves = float(torch.linalg.vector_norm(first)) ** 2, float(torch.linalg.vector_norm(second)) ** 2
            whole = first.add_(second).mul_(self._scale)
            del second  # of an embedding's size
            self._sums[name] = dot, *halves, float(torch.linalg.vector_norm(whole)) ** 2
            yield name, whole

    @property
    def figures(self) -> dict[str, float]:
        """Its norm, and the cosine of its halves where both have one."""
        dot, first, second, whole = self._parts.totals(self._sums)
        both = (first * second) ** 0.5
        cosine = {"half_cosine": dot / both} if both > 0 else {}
        return {"pseudo_gradient_norm": whole**0.5} | cosine

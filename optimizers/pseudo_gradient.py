"""The sum of a population's noise, weighted, and how much of it is signal.

Shapes: P members.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from .ownership import Figures


class PseudoGradient:
    """scale * sum_p w_p E_p of each parameter, to be gone through once; after that its figures are known.

    combine: of an `UpdateNoise`. The two halves of the population are combined apart: their cosine is the signal to noise.
    totals: sums each of so many figures over all parameters, whoever combines them (`Ascent`).
    """

    def __init__(
        self,
        combine: Callable[[Tensor], Iterator[tuple[str, Tensor]]],
        weight_P: Tensor,
        scale: float,
        *,
        totals: Callable[[Figures, int], Sequence[float]] | None = None,
    ) -> None:
        half = len(weight_P) // 4 * 2 or len(weight_P)
        self._first_P, self._second_P = weight_P.clone(), weight_P.clone()
        self._first_P[half:] = 0
        self._second_P[:half] = 0
        self._combine, self._scale, self._totals = combine, scale, totals or _sums
        self._products: dict[str, tuple[float, float, float, float]] = {}

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter's name and direction, which is given away: nothing here holds it then."""
        return map(self._together, self._combine(self._first_P), self._combine(self._second_P))

    def _together(self, one: tuple[str, Tensor], other: tuple[str, Tensor]) -> tuple[str, Tensor]:
        (name, first), (_, second) = one, other
        dot = float(torch.dot(first.flatten(), second.flatten()))
        squares = _square(first), _square(second)
        whole = first.add_(second).mul_(self._scale)
        self._products[name] = dot, *squares, _square(whole)
        return name, whole

    @property
    def figures(self) -> dict[str, float]:
        """Its norm, and the cosine of its halves where both have one."""
        dot, first, second, whole = self._totals(self._products, 4)
        both = (first * second) ** 0.5
        cosine = {"half_cosine": dot / both} if both > 0 else {}
        return {"pseudo_gradient_norm": whole**0.5} | cosine


def _sums(own: Figures, each: int) -> list[float]:
    return [sum(figures[i] for figures in own.values()) for i in range(each)]


def _square(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor)) ** 2

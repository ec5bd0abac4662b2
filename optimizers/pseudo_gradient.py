"""The sum of a population's noise, weighted, and how much of it is signal.

Shapes: P members.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


class PseudoGradient:
    """scale * sum_p w_p E_p of each parameter, to be gone through once; after that its figures are known.

    combine: of an `UpdateNoise`. The two halves of the population are combined apart: their cosine is the signal to noise.
    """

    def __init__(
        self, combine: Callable[[Tensor], Iterator[tuple[str, Tensor]]], weight_P: Tensor, scale: float
    ) -> None:
        half = len(weight_P) // 4 * 2 or len(weight_P)
        self._first_P, self._second_P = weight_P.clone(), weight_P.clone()
        self._first_P[half:] = 0
        self._second_P[:half] = 0
        self._combine, self._scale = combine, scale
        self._dot = self._first_norm = self._second_norm = self._norm = 0.0

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter's name and direction, which is given away."""
        others = self._combine(self._second_P)
        for name, first in self._combine(self._first_P):
            _, second = next(others)
            self._dot += float(torch.dot(first.flatten(), second.flatten()))
            self._first_norm += float(torch.linalg.vector_norm(first)) ** 2
            self._second_norm += float(torch.linalg.vector_norm(second)) ** 2
            whole = first.add_(second).mul_(self._scale)
            del second  # of an embedding's size
            self._norm += float(torch.linalg.vector_norm(whole)) ** 2
            yield name, whole

    @property
    def figures(self) -> dict[str, float]:
        """Its norm, and the cosine of its halves where both have one."""
        both = (self._first_norm * self._second_norm) ** 0.5
        cosine = {"half_cosine": self._dot / both} if both > 0 else {}
        return {"pseudo_gradient_norm": self._norm**0.5} | cosine

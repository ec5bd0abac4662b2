"""The machine's own limits: its rate of matrix products and its memory bandwidth."""

import time
from collections.abc import Callable

import torch

MATRIX, BUFFER_BYTES, TRIES = 2048, 2**28, 5


class Machine:
    """One device and one type of number."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        size = MATRIX if device.type == "cpu" else 4 * MATRIX
        self._device = device
        self._a, self._b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
        self._source = torch.ones(BUFFER_BYTES, dtype=torch.uint8, device=device)
        self._target = torch.empty_like(self._source)

    def flops_per_second(self) -> float:
        """Return the best of a few products of large square matrices."""
        return 2.0 * self._a.shape[0] ** 3 / self._least(lambda: self._a @ self._b)

    def bytes_per_second(self) -> float:
        """Return the best of a few copies of a buffer beyond every cache; reads and writes both count."""
        return 2.0 * BUFFER_BYTES / self._least(lambda: self._target.copy_(self._source))

    def _least(self, work: Callable[[], object]) -> float:
        def once() -> float:
            self._wait()
            begin = time.perf_counter()
            work()
            self._wait()
            return time.perf_counter() - begin

        return min(once() for _ in range(TRIES))

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

"""Detects that the memory did not hold a batch, and goes on with smaller ones."""

from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the memory ran out: on a GPU an error class of its own, on a CPU and Apple's a message."""
    told = ("can't allocate memory", "MPS backend out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in told)


def make_room(device: torch.device) -> None:
    """Give back what the allocator keeps. Call it after the error's handler: the error holds on to the batch's tensors."""
    if device.type == "mps":  # where torch 2.12 fails in torch.accelerator (pytorch issue 186430)
        torch.mps.empty_cache()
    elif device.type != "cpu":
        torch.accelerator.empty_cache()


class FittingRows:
    """The number of rows that the memory holds at once: `most`, until it turns out to hold fewer (`now`)."""

    def __init__(self, most: int) -> None:
        self.most = self.now = self._told = most

    def attempt(self, rows: int, work: Callable[[], Result], device: torch.device) -> Result | None:
        """Do work on this many rows and return its result; None if the memory did not hold it, and `now` is half of them.

        All that the work has made must be its own or its result: what it leaves elsewhere stays in the memory. Raise the
        error of a single row, and every other one.
        """
        try:
            return work()
        except (MemoryError, RuntimeError) as error:
            if rows < 2 or not is_out_of_memory(error):
                raise
        self.now = (rows + 1) // 2
        make_room(device)
        return None

    def recall(self, rows: int) -> None:
        """Take over what an earlier process has found out."""
        self.now = self._told = min(self.most, rows)

    def shrunk(self) -> bool:
        """Return whether it has become less since the last call, so that the user should hear of it."""
        before, self._told = self._told, min(self._told, self.now)
        return self.now < before

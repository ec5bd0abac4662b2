"""Halving what does not fit the memory: what is tried, what is raised, and that a failed try leaves nothing behind."""

import gc
import weakref

import pytest
import torch

from evotext.models.out_of_memory import FittingRows

CPU = torch.device("cpu")
FULL = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] can't allocate memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB, max allowed: 9.07 GB)"),
]


def raised(error: BaseException) -> object:
    raise error


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_what_does_not_fit_is_halved(error: BaseException) -> None:
    rows = FittingRows(9)
    assert rows.attempt(9, lambda: "done", CPU) == "done" and rows.now == 9 and not rows.shrunk()
    assert rows.attempt(9, lambda: raised(error), CPU) is None and rows.now == 5
    assert rows.attempt(5, lambda: raised(error), CPU) is None and rows.now == 3
    assert rows.shrunk() and not rows.shrunk(), "it is news once"
    assert rows.most == 9


def test_a_single_row_and_other_faults_are_raised() -> None:
    rows = FittingRows(4)
    with pytest.raises(MemoryError):
        rows.attempt(1, lambda: raised(MemoryError()), CPU)
    with pytest.raises(RuntimeError, match="a bug"):
        rows.attempt(4, lambda: raised(RuntimeError("a bug")), CPU)
    assert rows.now == 4


def test_what_was_found_out_before_is_no_news() -> None:
    rows = FittingRows(8)
    rows.recall(2)
    assert rows.now == 2 and not rows.shrunk()
    rows.recall(100)
    assert rows.now == 8


def test_a_failed_try_holds_on_to_nothing() -> None:
    """The error's traceback keeps the tensors of the try; they have to be gone before the next one."""
    made: list[weakref.ref[torch.Tensor]] = []

    def work() -> None:
        tensor = torch.zeros(3)
        made.append(weakref.ref(tensor))
        raise MemoryError

    gc.disable()
    try:
        FittingRows(4).attempt(4, work, CPU)
        assert made[0]() is None
    finally:
        gc.enable()

"""The peak is that of the run, not of what the process did before."""

import sys

import pytest
import torch

from evotext.runner.memory import forget_peak_memory, peak_memory_bytes

CPU = torch.device("cpu")
SIZE = 256 * 2**20


def test_the_peak_grows_with_what_is_held() -> None:
    forget_peak_memory(CPU)
    before = peak_memory_bytes(CPU)
    held = torch.ones(SIZE, dtype=torch.uint8)
    assert peak_memory_bytes(CPU) > before + 0.9 * SIZE
    del held


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can forget a peak")
def test_an_earlier_peak_is_forgotten() -> None:
    held = torch.ones(SIZE, dtype=torch.uint8)
    peak = peak_memory_bytes(CPU)
    del held
    forget_peak_memory(CPU)
    assert peak_memory_bytes(CPU) < peak - 0.9 * SIZE

"""The peak memory of a run excludes what the process did before."""

import sys

import pytest
import torch

from evotext.runner.memory import forget_peak_memory, free_memory_bytes, peak_memory_bytes

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


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_a_gpu_tells_its_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[torch.device] = []
    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", told.append)
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", lambda device: told.append(device) or 7)
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda device: told.append(device) or (5, 9))
    device = torch.device(kind, 1)
    forget_peak_memory(device)
    assert (peak_memory_bytes(device), free_memory_bytes(device)) == (7, 5) and told == [device] * 3


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nobody tells what is free")
def test_apples_gpus_share_the_processors() -> None:
    assert abs(peak_memory_bytes(torch.device("mps")) - peak_memory_bytes(CPU)) < SIZE
    assert abs((free_memory_bytes(torch.device("mps")) or 0) - (free_memory_bytes(CPU) or 0)) < SIZE

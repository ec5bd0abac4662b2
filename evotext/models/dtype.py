"""The type of number that a model's weights are stored in while it runs, where `model.dtype=auto` leaves it to the machine.

Recent processors have matrix instructions for bfloat16, whose products then run several times as fast as float32's; older
ones emulate them, several times as slowly. The choice is therefore measured: on a CPU by products of the model's own
width, in a twentieth of a second. Algorithms keep float32 masters of weights that are stored in bfloat16.
"""

import time
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from rich.console import Console

from evotext.distributed import collectives

DType = Literal["auto", "float32", "bfloat16"]
ROWS = 256  # rows of a decode step on a CPU
TRIES = 5
SECONDS_A_TRY = 0.005
# Processors with the instructions gain a factor of 3 and more, those without lose as much: neither comes near this bound.
WORTH_IT = 1.5


def resolve(dtype: DType, device: torch.device, hidden_size: int) -> torch.dtype:
    """Return the type of number for a model of this width on this device; all processes of a run get the same.

    Print once what was chosen for `auto` and why.
    """
    if dtype != "auto":
        return torch.float32 if dtype == "float32" else torch.bfloat16
    if device.type != "cpu":
        return torch.bfloat16
    gain = bfloat16_gain(hidden_size)
    gain = float(collectives.broadcast(torch.tensor(gain, dtype=torch.float64)))
    chosen = torch.bfloat16 if gain >= WORTH_IT else torch.float32
    if collectives.rank() == 0:
        name = str(chosen).removeprefix("torch.")
        say(
            f"model.dtype=auto: {name}; a layer of this model runs {gain:.1f} times as fast in bfloat16 as in float32 here"
        )
    return chosen


@lru_cache
def bfloat16_gain(hidden_size: int) -> float:
    """Return how many times as fast as in float32 a layer of this width runs in bfloat16 on this machine's CPU."""
    return _seconds(torch.float32, hidden_size) / _seconds(torch.bfloat16, hidden_size)


@lru_cache
def say(line: str) -> None:
    """Print a line to standard error, once a process."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(line)


@torch.inference_mode()
def _seconds(dtype: torch.dtype, width: int) -> float:
    """Return the least time of one product of ROWS rows with a matrix of `width` inputs and outputs."""
    x_BI, weight_OI = torch.ones(ROWS, width, dtype=dtype), torch.ones(width, width, dtype=dtype)

    def once(repeats: int) -> float:
        begin = time.perf_counter()
        for _ in range(repeats):
            F.linear(x_BI, weight_OI)
        return (time.perf_counter() - begin) / repeats

    once(1)  # the library prepares its kernel
    repeats = 1 + int(SECONDS_A_TRY / once(1))
    return min(once(repeats) for _ in range(TRIES))

"""Peak memory of one run, even if several run in one process one after another."""

import re
import resource
import sys
from pathlib import Path

import torch

from evotext.devices import has_own_memory

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MEMINFO = Path("/proc/meminfo")
_RESET_PEAK = "5"  # proc(5)


def forget_peak_memory(device: torch.device) -> None:
    """Count the peak from here on. Where the system cannot (other than Linux), it stays that of the process."""
    if has_own_memory(device):
        torch.accelerator.reset_peak_memory_stats(device)
        return
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak so far: the device's own on a GPU, else the process's resident set, libraries included."""
    if has_own_memory(device):
        return torch.accelerator.max_memory_allocated(device)
    found = _told(_STATUS, "VmHWM")
    if found is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def free_memory_bytes(device: torch.device) -> int | None:
    """Return how much is free on the device; of a CPU what the system could give without swapping. None: unknown."""
    if has_own_memory(device):
        return int(torch.accelerator.get_memory_info(device)[0])
    return _told(_MEMINFO, "MemAvailable")


def process_bytes() -> int:
    """Return what this process holds now, Python and its libraries; 0 where the system does not say."""
    return _told(_STATUS, "VmRSS") or 0


def _told(file: Path, name: str) -> int | None:
    """Return the bytes that a file of /proc gives a name; None where it does not."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", file.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None

"""Differences between kinds of devices for which torch has no neutral word (docs/devices.md)."""

import torch

WITHOUT_FLOAT64 = {"mps"}


def widest_float(device: torch.device) -> torch.dtype:
    """Return float64 where the device has it, else float32: Apple's GPUs have none, and some of Intel's."""
    if device.type == "xpu":
        return torch.float64 if torch.xpu.get_device_properties(device).has_fp64 else torch.float32
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def has_own_memory(device: torch.device) -> bool:
    """Return whether the device's memory is another than the processor's, which Apple's GPUs share."""
    return device.type not in ("cpu", "mps")

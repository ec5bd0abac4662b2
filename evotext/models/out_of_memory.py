"""Telling that the memory did not hold a batch from every other fault, and making room for a smaller one."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """On a GPU an error of its own; on a CPU torch says it in words."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def make_room(device: torch.device) -> None:
    """Give back what the allocator keeps. Call it after the error's handler: the error holds on to the batch's tensors."""
    if device.type == "cuda":
        torch.cuda.empty_cache()

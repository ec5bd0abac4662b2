"""The processor cores that this process may use."""

import os


def usable_cores() -> int:
    """Return how many cores this process may run on: fewer than the machine has, under taskset, Slurm or a container's set."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

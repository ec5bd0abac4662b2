"""The environment variables that torchrun sets, read without importing torch.

Only torchrun's own variables count: RANK and WORLD_SIZE alone are also set by clusters that start single processes.
"""

import os
import socket
from pathlib import Path
from typing import Any

_FOLDER_KEY = "evotext/folder"


def local_group(size: int) -> list[dict[str, str]]:
    """Return the environment variables that torchrun would set for each of `size` processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        {
            "TORCHELASTIC_RUN_ID": "local",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        for rank in range(size)
    ]


def rank() -> int:
    """Return the number of this process in the run; process 0 writes and prints."""
    return _number("RANK", 0)


def local_rank() -> int:
    """Return the number of this process on this machine: it chooses the GPU."""
    return _number("LOCAL_RANK", 0)


def size() -> int:
    """Return how many processes the run has."""
    return _number("WORLD_SIZE", 1)


def local_size() -> int:
    """Return how many of them are on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1)


def launched() -> bool:
    """Return whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def attempt() -> str:
    """Return a name that this group of processes has in the store.

    The store of torchrun's agent may outlive a group that died, with the addresses of its processes in it. A store that the
    group makes itself does not, and there the agents of an elastic job count restarts apart.
    """
    return f"evotext/{restarts()}" if _has_store() else "evotext"


def restarts() -> int:
    """Return how often torchrun has started the group again because a process died."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def remember_folder(folder: Path) -> None:
    """Tell the store of torchrun's agent, which outlives its workers, where the run's folder is."""
    if size() > 1 and _has_store():
        _store().set(_FOLDER_KEY, str(folder.resolve()))


def remembered_folder() -> Path | None:
    """After a restart, return the folder of the run before it, if it got far enough to have one."""
    if not restarts() or not _has_store():
        return None
    store = _store()
    return Path(store.get(_FOLDER_KEY).decode()) if store.check([_FOLDER_KEY]) else None


def _number(variable: str, default: int) -> int:
    return int(os.environ.get(variable, default)) if launched() else default


def _has_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _store() -> Any:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)

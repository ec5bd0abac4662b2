"""Models that are built once and kept in the user's cache folder, safe against parallel runs and damage.

A finished model carries a manifest with the hash of each of its files. A build happens in a folder beside its final
place and is renamed when it is whole, under a file lock, so that a killed build leaves nothing that looks finished.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path
from rich.console import Console

from evotext.run_folder.manifest import damage, seal


class ModelCache:
    """folder: where models are kept; None takes `$EVOTEXT_CACHE` or else the user's cache folder."""

    def __init__(self, folder: str | None) -> None:
        chosen = folder or os.environ.get("EVOTEXT_CACHE")
        self._folder = Path(chosen).expanduser() if chosen else user_cache_path("evotext")

    def get(self, key: str, build: Callable[[Path], None]) -> Path:
        """Return the folder of the model with this key; `build` fills an empty folder with it if there is none yet.

        Raise ValueError if the cache folder cannot be written.
        """
        final = self._folder / key
        console = Console(stderr=True, highlight=False)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._folder / f"{key}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                console.print("waiting for another run that is building the model")
                lock.acquire()
        except OSError as error:
            raise ValueError(
                f"cache_folder: expected a folder that can be written, got {self._folder} ({error.strerror}); "
                "set it or the variable EVOTEXT_CACHE to another one"
            ) from error
        with lock:
            if final.exists():
                fault = damage(final)
                if not fault:
                    return final
                console.print(f"the cached model is damaged ({fault}): building it again")
                shutil.rmtree(final)
            # A build that was killed left its folder; none goes on, since this process holds the lock.
            for abandoned in self._folder.glob(f"{key}.building-*"):
                shutil.rmtree(abandoned)
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=f"{key}.building-") as made:
                building = Path(made) / "model"
                building.mkdir()
                build(building)
                seal(building)
                building.rename(final)
        return final

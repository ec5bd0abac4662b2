"""Models that are built once and kept in the user's cache folder, safe against parallel runs and damage.

A finished model carries a manifest with the hash of each of its files. A build happens in a folder beside its final
place and is renamed when it is whole, under a file lock; so a killed build leaves nothing that looks finished.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path
from rich.console import Console

MANIFEST = "manifest.json"


class ModelCache:
    """folder: where models are kept; None takes `$EVOTEXT_CACHE` or else the user's cache folder."""

    def __init__(self, folder: str | None) -> None:
        chosen = folder or os.environ.get("EVOTEXT_CACHE")
        self._folder = Path(chosen).expanduser() if chosen else user_cache_path("evotext")

    def get(self, key: str, build: Callable[[Path], None]) -> Path:
        """The folder of the model with this key; `build` fills an empty folder with it if there is none yet.

        Raises ValueError if the cache folder cannot be written.
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
                f"model.cache_folder: expected a folder that can be written, got {self._folder} ({error.strerror}); "
                "set it or the variable EVOTEXT_CACHE to another one"
            ) from error
        with lock:
            if final.exists():
                damage = _damage(final)
                if not damage:
                    return final
                console.print(f"the cached model is damaged ({damage}): building it again")
                shutil.rmtree(final)
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=f"{key}.building-") as made:
                building = Path(made) / "model"
                building.mkdir()
                build(building)
                manifest = {path.name: _digest(path) for path in sorted(building.iterdir())}
                (building / MANIFEST).write_text(json.dumps(manifest, indent=2))
                building.rename(final)
        return final


def _damage(folder: Path) -> str:
    """What is wrong with a cached model; empty if nothing is."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name, digest in manifest.items():
            if _digest(folder / name) != digest:
                return f"{name} has changed"
    except (OSError, ValueError, AttributeError) as error:
        return str(error)
    return "" if manifest else "its manifest is empty"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

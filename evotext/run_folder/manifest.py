"""Folders that are whole or absent: made beside their place, hashed, renamed; damage is found when they are read."""

import hashlib
import json
import os
from pathlib import Path

MANIFEST = "manifest.json"


def seal(folder: Path) -> None:
    """Write the hash of every file of the folder, and sync all of them to the disk."""
    files = sorted(folder.iterdir())
    (folder / MANIFEST).write_text(json.dumps({file.name: digest(file) for file in files}, indent=2))
    for path in (*files, folder / MANIFEST, folder):
        to_disk(path)


def damage(folder: Path) -> str:
    """Say what is wrong with a sealed folder; empty if nothing is."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name, expected in manifest.items():
            if Path(name).name != name:
                return f"its manifest names {name!r}, which is outside"
            if digest(folder / name) != expected:
                return f"{name} has changed"
    except (OSError, ValueError, AttributeError) as error:
        return str(error)
    return "" if manifest else "its manifest is empty"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of entries, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Atomic writes of files and folders: made aside, then renamed."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

WRITING, LEAVING = ".writing", ".leaving"


def write_text(path: Path, text: str) -> None:
    """Write a file, or leave what is there. Raise OSError."""
    aside = path.with_name(path.name + WRITING)
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def write_json(path: Path, record: Mapping[str, object]) -> None:
    """Write a record as JSON, or leave what is there. Raise OSError."""
    write_text(path, json.dumps(record, indent=2) + "\n")


def write_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a folder, then put it in the place of what is there. Raise OSError.

    Killed between two renamings it leaves the whole new folder aside, or the whole old one.
    """
    aside, before = (path.with_name(path.name + ending) for ending in (WRITING, LEAVING))
    for left in (aside, before):
        shutil.rmtree(left, ignore_errors=True)
    write(aside)
    if path.exists():
        path.rename(before)
    aside.rename(path)
    shutil.rmtree(before, ignore_errors=True)

"""Finds run folders."""

import os
from collections.abc import Sequence
from pathlib import Path

from evotext.run_folder.names import MARKS, METRICS, SUMMARY


def find_runs(roots: Sequence[Path]) -> list[Path]:
    """Return all run folders at or below these, each once, in the order of their paths below each root.

    Raise ValueError if a root is no folder or holds no run.
    """
    found: dict[Path, Path] = {}
    for root in roots:
        if not root.is_dir():
            raise ValueError(f"expected a run folder or a folder of runs, got {str(root)!r}, which is not a folder")
        here = 0
        for folder, subfolders, files in os.walk(root):
            if any(mark in files or mark in subfolders for mark in MARKS):
                subfolders.clear()
                here += 1
                found.setdefault(Path(folder).resolve(), Path(folder))
            visible = [name for name in subfolders if not name.startswith(".")]
            subfolders[:] = sorted(visible, key=lambda name: (int(name) if name.isdecimal() else -1, name))
        if not here:
            raise ValueError(f"no runs in {str(root)!r}: expected folders with a {SUMMARY} or a {METRICS}")
    return list(found.values())

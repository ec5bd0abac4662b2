"""Writes a run's records: the lines while it goes on, the summary at its end."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from evotext.run_folder import names
from evotext.run_folder.atomic import write_json
from evotext.run_folder.manifest import to_disk
from evotext.run_folder.schema import EpisodesLine, Line, Summary, TrainingEpisode

# The files that `JsonLines` writes.
_LINES = (names.METRICS, names.EPISODES)


class JsonLines:
    """`metrics.jsonl`: one object a generation and one an evaluation, on disk as soon as it is logged.

    `episodes.jsonl`: a few measured episodes as text, a line an evaluation; now and then a few of training, a line each.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / names.METRICS).open("a", encoding="utf-8", buffering=1)
        self._episodes = (folder / names.EPISODES).open("a", encoding="utf-8", buffering=1)

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """Write one line; figures that are not finite become null, which JSON can say. Raise ValueError for no `Line`."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        Line.model_validate(finite)
        self._file.write(json.dumps(finite) + "\n")

    def log_transcripts(self, generation: int, texts: Sequence[str]) -> None:
        """Write one line with the episodes of this measurement."""
        line = EpisodesLine(generation=generation, texts=list(texts))
        self._episodes.write(json.dumps(line.model_dump()) + "\n")

    def log_training_episodes(self, episodes: Sequence[TrainingEpisode]) -> None:
        """Write one line an episode."""
        for episode in episodes:
            self._episodes.write(json.dumps(episode.model_dump()) + "\n")

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._episodes.close()


def write_summary(folder: Path, summary: Summary) -> None:
    """Write `summary.json`. Raise OSError."""
    write_json(folder / names.SUMMARY, summary.model_dump(mode="json"))


def write_fault(folder: Path, kind: str, text: str) -> Path:
    """Write the first fault of a kind to a file, and return its path. Raise OSError."""
    path = folder / names.FAULTS / f"{kind}.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def record_lengths(folder: Path) -> dict[str, int]:
    """Return the present length of each file of lines in bytes, after syncing it to the disk."""
    lengths = {}
    for name in _LINES:
        if (folder / name).exists():
            to_disk(folder / name)
            lengths[name] = (folder / name).stat().st_size
    return lengths


def records_fault(folder: Path, lengths: Mapping[str, int]) -> str:
    """Say which file of lines is shorter than it was; empty if none is."""
    for name, length in lengths.items():
        found = (folder / name).stat().st_size if (folder / name).exists() else 0
        if found < length:
            return f"{name} has {found} bytes and had {length}"
    return ""


def cut_records(folder: Path, lengths: Mapping[str, int]) -> None:
    """Forget what was written after a checkpoint, for it will be written again."""
    for name in _LINES:
        if (folder / name).exists():
            os.truncate(folder / name, lengths.get(name, 0))

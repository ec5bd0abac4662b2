"""Where a run's figures and sample episodes go: a line of JSON each, and TensorBoard events."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from evotext.run_folder.manifest import to_disk
from evotext.runner.hyperparameters import hyperparameters

# Axes rather than figures: in TensorBoard they would only draw straight lines.
_AXES = ("kind", "generation", "episodes", "generated_tokens", "seconds", "flops")


def figures(record: Mapping[str, float | int | str]) -> dict[str, float]:
    """The numbers of a record under the names that all trackers share: those of training begin with `train/`.

    What was spent so far is under `spent/`; the kind and the generation are left out.
    """
    prefix = "" if record["kind"] == "eval" else "train/"
    return {
        (f"spent/{name}" if name in _AXES else prefix + name): float(value)
        for name, value in record.items()
        if name != "generation" and not isinstance(value, str)
    }


def ended_well(folder: Path) -> bool:
    """Whether the run's summary, which is written before trackers are closed, says that it was completed."""
    try:
        return bool(
            json.loads((folder / "summary.json").read_text(encoding="utf-8"))["status"] in ("completed", "pruned")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


# What `JsonLines` writes.
RECORDS = ("metrics.jsonl", "episodes.jsonl")


def record_lengths(folder: Path) -> dict[str, int]:
    """Bytes of each record so far, all of them brought to the disk."""
    lengths = {}
    for name in RECORDS:
        if (folder / name).exists():
            to_disk(folder / name)
            lengths[name] = (folder / name).stat().st_size
    return lengths


def records_fault(folder: Path, lengths: Mapping[str, int]) -> str:
    """Which record is shorter than it was; empty if none is."""
    for name, length in lengths.items():
        found = (folder / name).stat().st_size if (folder / name).exists() else 0
        if found < length:
            return f"{name} has {found} bytes and had {length}"
    return ""


def cut_records(folder: Path, lengths: Mapping[str, int]) -> None:
    """Forget what was written after a checkpoint, for it will be written again."""
    for name in RECORDS:
        if (folder / name).exists():
            os.truncate(folder / name, lengths.get(name, 0))


class JsonLines:
    """`metrics.jsonl`: one object a generation and one an evaluation, on disk as soon as it is logged.

    `episodes.jsonl`: a few held-out episodes as text at each evaluation.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8", buffering=1)
        self._episodes = (folder / "episodes.jsonl").open("a", encoding="utf-8", buffering=1)

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """Write one line; figures that are not finite become null, which JSON can say."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self._file.write(json.dumps(finite) + "\n")

    def log_transcripts(self, generation: int, texts: Sequence[str]) -> None:
        """Write one line with the episodes of this measurement."""
        self._episodes.write(json.dumps({"generation": generation, "texts": list(texts)}) + "\n")

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._episodes.close()


class TensorBoard:
    """`tensorboard/`: every figure over generations, and a few episodes as text.

    The run's hyperparameters go there too, so that the HParams page sets the runs of a sweep side by side with the last
    value of every figure. Each run says only its own: what there is to choose from is TensorBoard's to find in all runs.

    A run that was taken up again begins with a later generation than 0: TensorBoard is told to forget what an earlier
    process wrote from that generation on.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: SummaryWriter | None = None

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """One point of each figure at the record's generation."""
        generation = int(record["generation"])
        for name, value in figures(record).items():
            if not name.startswith("spent/"):
                self._writer(generation).add_scalar(name, value, generation)

    def log_transcripts(self, generation: int, texts: Sequence[str]) -> None:
        """The episodes, as they were."""
        for i, text in enumerate(texts):
            indented = "\n".join(f"    {line}" for line in text.splitlines())  # Markdown for verbatim text
            self._writer(generation).add_text(f"episodes/{i}", indented, generation)

    def close(self) -> None:
        """Write out what is pending, and that the run was completed if it was."""
        if self._opened is None:
            return
        if ended_well(self._folder):
            _, _, end = hparams({}, {})
            self._write(end)
        self._opened.close()

    def _writer(self, generation: int) -> SummaryWriter:
        if self._opened is None:
            place = self._folder / "tensorboard"
            self._opened = SummaryWriter(str(place), flush_secs=10, purge_step=generation)
            _, start, _ = hparams(hyperparameters(self._folder), {})
            self._write(start)
        return self._opened

    def _write(self, summary: Any) -> None:
        assert self._opened is not None
        self._opened._get_file_writer().add_summary(summary)  # the writer's own add_hparams makes a run of it


class NoTracker:
    """Nothing besides `metrics.jsonl`."""

    def __init__(self, folder: Path) -> None:
        """Takes the run's folder as every tracker does."""

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """Nothing."""

    def log_transcripts(self, generation: int, texts: Sequence[str]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

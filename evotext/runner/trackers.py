"""Where a run's figures and sample episodes go: a line of JSON each, and TensorBoard events."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

# Axes rather than figures: in TensorBoard they would only draw straight lines.
_AXES = ("kind", "generation", "episodes", "generated_tokens", "seconds", "flops")


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
    """`tensorboard/`: every figure over generations, and a few episodes as text."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder / "tensorboard"), flush_secs=10)

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """One point of each figure at the record's generation."""
        prefix = "" if record["kind"] == "eval" else "train/"
        for name, value in record.items():
            if name not in _AXES and not isinstance(value, str):
                self._writer.add_scalar(prefix + name, value, int(record["generation"]))

    def log_transcripts(self, generation: int, texts: Sequence[str]) -> None:
        """The episodes, as they were."""
        for i, text in enumerate(texts):
            indented = "\n".join(f"    {line}" for line in text.splitlines())  # Markdown for verbatim text
            self._writer.add_text(f"episodes/{i}", indented, generation)

    def close(self) -> None:
        """Write out what is pending."""
        self._writer.close()


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

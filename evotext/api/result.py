"""What `tune` returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evotext.run_folder.record import RunRecord


@dataclass(frozen=True, kw_only=True)
class Result:
    """A run that has ended."""

    success: float | None
    """Share of the held-out episodes that the tuned model solves; None for a task that knows no success."""
    before: float | None
    """The same before training."""
    folder: Path
    """The run's folder: records, checkpoints, `model/`."""
    model: PreTrainedModel = field(repr=False)
    """The tuned model, in evaluation mode; additions of an adapter are merged in."""
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    """Its tokenizer."""
    cost: Mapping[str, float] = field(repr=False)
    """What training took: `episodes`, `generated_tokens`, `updates`, `seconds`, `flops`, `peak_memory_bytes` and more."""
    record: RunRecord = field(repr=False)
    """Everything that the folder says, as reports read it: returns, `points` of the curve, sample episodes, settings."""

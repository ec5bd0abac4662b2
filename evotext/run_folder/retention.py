"""The record under `retention` in `evaluation.json`, which `evotext evaluate retention=[...]` writes: what a run unlearned."""

import json
from pathlib import Path

from pydantic import Field, ValidationError

from evotext.run_folder import names
from evotext.run_folder.schema import Amount, Number, Record, Share


class RetainedTask(Record):
    """Another task than the run's, by the model that the run started from and by the tuned one, on the same instances."""

    env: str = ""
    return_before: Number | None = None
    return_after: Number | None = None
    success_before: Share | None = None
    """None for a task that knows no success."""
    success_after: Share | None = None
    kl_from_start: Number | None = None
    """KL(start || tuned) in nats a token, on what the starting model says at temperature 1."""


class Retention(Record):
    """All of them, and how far the weights went."""

    tasks: list[RetainedTask] = Field(default_factory=list)
    drift: Amount | None = None
    """Euclidean distance of the tuned weights from the starting ones."""
    drift_share: Amount | None = None
    """The same as a share of the starting weights' norm."""


def read_retention(folder: Path, problems: list[str]) -> Retention | None:
    """Return what the folder's `evaluation.json` says; None where it says nothing. problems: takes what is wrong, in words."""
    try:
        record = json.loads((folder / names.EVALUATION).read_text(encoding="utf-8", errors="replace"))
        found = record.get("retention")
        return None if found is None else Retention.model_validate(found, context=problems)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, RecursionError, ValidationError) as error:
        problems.append(f"{names.EVALUATION} cannot be read ({type(error).__name__})")
        return None

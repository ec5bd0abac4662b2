"""Converts the records of older versions to the present schema."""

from typing import Any

# Trials of tuning had a seed that no other run had.
_SEED_OF_TRIALS = 1_000_003
# The split stood at the end of a sentence.
_ON_VALIDATION = " on validation instances"


def newer(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return the record `eval` of a summary with the field `split`."""
    decoding = evaluation.get("decoding")
    if "split" in evaluation or not isinstance(decoding, str):
        return evaluation
    split = "validation" if decoding.endswith(_ON_VALIDATION) else "test"
    return evaluation | {"decoding": decoding.removesuffix(_ON_VALIDATION), "split": split}


def phase_by_seed(seed: int | None) -> str:
    """Return the phase of a run that has no such field."""
    return "tuning" if seed == _SEED_OF_TRIALS else "reporting"

"""Rows of a dataset: a local .jsonl, .csv or .parquet file, or a name on the Hugging Face Hub."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from evotext.library import optional

from ..prompts import SHARES, divided

LOCAL = (".jsonl", ".csv", ".parquet")
Row = Mapping[str, Any]
LEAST = 1 + len(SHARES)
"""Different rows: one for each split."""
Item = TypeVar("Item")


def rows_of(path: str, subset: str | None, split: str) -> tuple[Row, ...]:
    """Return the rows, in order; read once for as long as a local file stays as it is.

    Raise ValueError for a file that is missing or malformed, with the number of its row, and for a dataset that cannot
    be loaded. Raise ImportError where the package `datasets` is needed and missing.
    """
    if not path.endswith(LOCAL):
        return _from_hub(path, subset, split)
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"path: expected a file that exists, got {path!r}; give its path from here or the whole one")
    stat = file.stat()
    return _from_file(str(file.resolve()), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _from_file(path: str, changed: int, size: int) -> tuple[Row, ...]:
    file = Path(path)
    try:
        return tuple({".jsonl": _lines, ".csv": _table, ".parquet": _columns}[file.suffix](file))
    except UnicodeDecodeError as error:
        raise ValueError(f"path: expected text in UTF-8 in {file.name}, got other bytes: {error}") from error


def _lines(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"path: row {number} of {file.name}: expected a JSON object: {error}") from error
            if not isinstance(row, dict):
                raise ValueError(
                    f"path: row {number} of {file.name}: expected a JSON object, got {line.strip()[:40]!r}"
                )
            yield row


def _table(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        number = 0
        try:
            for number, row in enumerate(reader, 1):
                if None in row:
                    raise ValueError(
                        f"path: row {number} of {file.name}: expected as many fields as the first line has"
                    )
                yield row
        except csv.Error as error:
            raise ValueError(f"path: row {number + 1} of {file.name}: expected a line of CSV: {error}") from error


def _columns(file: Path) -> Iterator[Row]:
    library = optional("pyarrow.parquet", "datasets")
    try:
        yield from library.read_table(file).to_pylist()
    except (OSError, ValueError) as error:
        raise ValueError(f"path: expected a parquet file, got {file.name}: {error}") from error


@lru_cache(maxsize=16)
def _from_hub(path: str, subset: str | None, split: str) -> tuple[Row, ...]:
    library = optional("datasets", "datasets")
    try:
        return tuple(library.load_dataset(path, subset, split=split))
    except Exception as error:  # no network, no such dataset, subset or split, a script that it will not run
        line = " ".join(str(error).split())[:300]
        raise ValueError(
            f"path: expected a file ending in {', '.join(LOCAL)} or a dataset on the Hub with the split {split!r}, "
            f"got {path!r}: {type(error).__name__}: {line}"
        ) from error


def shared_out(
    items: Sequence[Item], held_out: Sequence[Item] | None, content: Callable[[Item], str], key: str
) -> Mapping[str, Sequence[Item]]:
    """Return the items of each split; those of equal content are in one.

    held_out: the test split, whose items are left out of the others; None divides `items` into three, by their hashes.
    Raise ValueError, which begins with the key, for too few different ones.
    """
    by_content = [(content(item), item) for item in items]
    test = [(content(item), item) for item in held_out or ()]
    held = {found for found, _ in test}
    left = {found for found, _ in by_content} - held
    if len(left) < LEAST or (held_out is not None and not test):
        raise ValueError(
            f"{key}: expected at least {LEAST} different questions besides those of a test split, and some in that, got "
            f"{len(left)} and {len(held)}; add rows"
        )
    parts = {split: set(part) for split, part in divided(list(left)).items()}
    if held_out is None:
        test = [(found, item) for found, item in by_content if found in parts["test"]]
    else:
        parts["train"] |= parts["test"]
    splits = {split: [item for found, item in by_content if found in parts[split]] for split in ("train", "validation")}
    return splits | {"test": [item for _, item in test]}

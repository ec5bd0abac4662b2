"""Try every family of transformers and write docs/models.md: `python scripts/model_families.py [FAMILY ...] [--out FILE]`.

Each family runs in a process of its own, bounded in time and memory. Exit status 1 if one computes something wrong, which a
line on standard error names.
"""

import argparse
import multiprocessing
import resource
import sys
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from families.checks import Outcome, Wrong, check
from families.page import page
from families.tiny import families
from pydantic import TypeAdapter
from transformers import logging

PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"
SECONDS, BYTES = 300, 8 << 30
OUTCOME = TypeAdapter(Outcome)


def main() -> None:
    """Check the families named, or all; write the page if all were checked or a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", nargs="*", help="model types as transformers calls them; all if none is named")
    parser.add_argument("--out", type=Path, help="where to write the page; docs/models.md if all are checked")
    options = parser.parse_args()
    unknown = sorted(set(options.family) - set(families()))
    if unknown:
        parser.error(f"family: expected families that transformers knows, got {', '.join(unknown)}")
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # before processes are forked
    outcomes: list[Outcome] = []
    wrong = 0
    for family in options.family or families():
        try:
            outcomes.append(bounded(family))
        except Wrong as error:
            wrong += 1
            print(error, file=sys.stderr)
            continue
        print(line(outcomes[-1]), flush=True)
    out = options.out or (None if options.family else PAGE)
    if out is not None and not wrong:
        out.write_text(page(outcomes))
        print(f"wrote {out}")
    sys.exit(1 if wrong else 0)


def bounded(family: str) -> Outcome:
    """Return what a process of its own found out. Raise Wrong for a wrong outcome, and for more than `SECONDS` or `BYTES`."""
    fork = multiprocessing.get_context("fork")  # torch and transformers have been imported already
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_one, args=(family, theirs))
    process.start()
    theirs.close()
    try:
        said = ours.recv_bytes() if ours.poll(SECONDS) else f"{family}: more than {SECONDS} s".encode()
    except EOFError:
        said = f"{family}: the process ended; does the family fit {BYTES >> 30} GiB?".encode()
    process.kill()
    process.join()
    if not said.startswith(b"{"):
        raise Wrong(said.decode())
    return OUTCOME.validate_json(said)


def line(outcome: Outcome) -> str:
    """Return one family's outcome in a line."""
    if not outcome.runs:
        return f"{outcome.family}: refused: {outcome.reason}"
    without = f" without {', '.join(outcome.exclude)}" if outcome.exclude else ""
    return f"{outcome.family}: runs{without}; logits within {outcome.difference:.0e} in {outcome.seconds:.1f} s"


def _one(family: str, answer: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    try:
        answer.send_bytes(OUTCOME.dump_json(check(family)))
    except Exception as error:  # the parent tells it
        answer.send_bytes(f"{family}: {type(error).__name__}: {error}".encode())


if __name__ == "__main__":
    main()

"""Faults of the environment over a run: counted by kind, each kind reported once, its first traceback kept in a file.

An environment that fails now and then looks like a hard task in every other metric.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

import torch

from evotext.cli.messages import one_line, without_secrets
from evotext.distributed import collectives
from evotext.run_folder.writer import write_fault
from evotext.types import FAULTS, Ending, Fault, Trajectories


def fault_counts(batch: Trajectories) -> Counter[str]:
    """Return how many episodes each kind of fault has ended; kinds that did not occur are left out."""
    number = torch.bincount(batch.ending_B, minlength=len(Ending)).tolist()
    return Counter({kind.label: number[kind] for kind in FAULTS if number[kind]})


def listed(counts: Counter[str]) -> str:
    """Return counts in words, the most frequent first."""
    return ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common())


def first_seen(examples: Iterable[Fault], known: Collection[str], folder: Path) -> list[str]:
    """Return a line for each kind not known yet; the first process writes its traceback into the run's folder."""
    lines = []
    for fault in examples:
        kind = fault.kind.label
        if kind in known:
            continue
        line = (
            f"warning: {one_line(str(fault))} (environment seed {fault.instance}); such episodes end there and are counted "
            f"as {kind}; env.strict=true ends a run instead"
        )
        if collectives.rank() == 0:
            text = f"{fault}\nenvironment seed {fault.instance}\n\n{fault.traceback}\n"
            line += f"; written down in {write_fault(folder, kind, without_secrets(text))}"
        lines.append(line)
    return lines

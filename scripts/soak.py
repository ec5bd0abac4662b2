"""Checks that a long run leaks nothing: runs scripts/train.py and watches its memory, file handles, threads and folder.

    python scripts/soak.py out=runs/soak env=recall algorithm=eggroll budget=seconds budget.limit=3600

out=DIR      the run's folder; soak.json goes into it
every=15     seconds between two looks

Every other word goes to train.py. The first tenth of the run is left out: caches fill. Exit status 1 if the run fails, if
its memory grows by more than a tenth, or if file handles or threads grow.
"""

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

import psutil

from evotext.cli import settings
from evotext.cli.errors import ConfigError
from evotext.cli.main import exit_with
from evotext.validation import PositiveInt

TRAIN = Path(__file__).resolve().parent / "train.py"
FEWEST = 10
Look = dict[str, float]


class Settings(settings.Settings):
    """The settings of the check."""

    out: Path
    every: PositiveInt = 15


def main(words: list[str]) -> int:
    """Watch one run; return the exit status. Raise ConfigError for what the user should change."""
    told, passed_on = settings.read(words, Settings, description=__doc__)
    out = told.out
    looks = watch([sys.executable, str(TRAIN), *passed_on, f"hydra.run.dir={out}"], out, told.every)
    if looks is None:
        return 1
    found = verdict(looks)
    (out / "soak.json").write_text(json.dumps({"verdict": found, "looks": looks}, indent=1) + "\n", encoding="utf-8")
    print(
        f"{found['minutes']:.0f} minutes: memory {found['first_mb']:.0f} -> {found['last_mb']:.0f} MB, "
        f"file handles at most {found['handles']:.0f} ({found['more_handles']:+.0f}), "
        f"threads at most {found['threads']:.0f} ({found['more_threads']:+.0f}), folder {found['folder_mb']:.1f} MB"
    )
    flat = found["last_mb"] <= 1.1 * found["first_mb"] and found["more_handles"] <= 0 and found["more_threads"] <= 0
    print("flat" if flat else "NOT FLAT")
    return 0 if flat else 1


def watch(command: list[str], folder: Path, every: int) -> list[Look] | None:
    """Return what the process held, look by look, until it ended; None if it failed."""
    begin, looks = time.monotonic(), []
    with subprocess.Popen(command) as process:  # noqa: S603 (our own script)
        seen = psutil.Process(process.pid)
        while True:
            try:
                process.wait(timeout=every)
                break
            except subprocess.TimeoutExpired:
                with suppress(psutil.NoSuchProcess, FileNotFoundError):  # ended, or renamed a file, meanwhile
                    looks.append(look(seen, folder, time.monotonic() - begin))
    return looks if process.returncode == 0 else None


def look(process: psutil.Process, folder: Path, seconds: float) -> Look:
    """Return what it holds now: resident bytes, open handles, threads; and the bytes in its folder."""
    with process.oneshot():
        return {
            "seconds": seconds,
            "memory_bytes": process.memory_info().rss,
            "handles": process.num_fds() if hasattr(process, "num_fds") else process.num_handles(),
            "threads": process.num_threads(),
            "folder_bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        }


def verdict(looks: list[Look]) -> Look:
    """Compare the later half of the run with the one before, without the first tenth. Raise ConfigError for too few looks.

    Memory is compared by medians, since it moves within a generation; of handles and threads the most counts.
    """
    settled = looks[len(looks) // 10 :]
    if len(settled) < FEWEST:
        raise ConfigError(
            f"expected a run of at least {FEWEST + 2} looks, got {len(looks)}; take a longer one or every=1"
        )
    early, late = settled[: len(settled) // 2], settled[len(settled) // 2 :]

    def most(key: str, part: list[Look]) -> float:
        return max(one[key] for one in part)

    return {
        "minutes": looks[-1]["seconds"] / 60,
        "first_mb": median(one["memory_bytes"] for one in early) / 1e6,
        "last_mb": median(one["memory_bytes"] for one in late) / 1e6,
        "handles": most("handles", settled),
        "more_handles": most("handles", late) - most("handles", early),
        "threads": most("threads", settled),
        "more_threads": most("threads", late) - most("threads", early),
        "folder_mb": looks[-1]["folder_bytes"] / 1e6,
    }


if __name__ == "__main__":
    exit_with(lambda: main(sys.argv[1:]))

"""Runs `checks.py` in a process of its own: torch does not forget a device that it was told of."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_everything_runs_on_a_device() -> None:
    # The pretended device comes first: it has to be there before what it changes is imported.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.device.pretend", "-p", "no:cacheprovider"]
    checks = subprocess.run(
        [*command, "tests/device/checks.py"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checks.returncode == 0, checks.stdout[-4000:] + checks.stderr[-2000:]

"""The soak run's verdict on made-up looks, and the script's parts on processes of a second."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import soak  # noqa: E402


def looks(count: int, **growth: float) -> list[soak.Look]:
    held = {"memory_bytes": 500e6, "handles": 8.0, "threads": 4.0, "folder_bytes": 1e6}
    return [
        {"seconds": 15.0 * i} | {key: value + growth.get(key, 0.0) * i for key, value in held.items()}
        for i in range(count)
    ]


def test_a_flat_run_is_flat() -> None:
    found = soak.verdict(looks(40))
    assert found["first_mb"] == found["last_mb"] == 500 and found["minutes"] == 39 * 15 / 60
    assert found["more_handles"] == found["more_threads"] == 0 and found["handles"] == 8


def test_growth_is_seen_after_the_first_tenth() -> None:
    found = soak.verdict(looks(40, memory_bytes=1e6, handles=1, threads=0.5))
    # The halves of looks 4 to 39 have their middles at 12.5 and 30.5.
    assert found["first_mb"] == 512.5 and found["last_mb"] == 530.5
    assert found["more_handles"] == 18 and found["more_threads"] == 9


def test_too_few_looks_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="expected a run of at least 12 looks, got 5"):
        soak.verdict(looks(5))


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "out: expected a value"), (["out=x", "every=0"], "every: expected a number of at least 1")],
)
def test_mistakes_are_one_line(words: list[str], message: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "soak.py", *words], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1


def test_a_run_that_fails_fails_the_soak(tmp_path: Path) -> None:
    assert soak.watch([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, every=1) is None


def test_a_process_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    found = soak.watch([sys.executable, "-c", "import time; time.sleep(1.5)"], tmp_path, every=1)
    assert found and found[0]["memory_bytes"] > 1e6 and found[0]["threads"] >= 1 and found[0]["folder_bytes"] == 5
    assert json.loads(json.dumps(found)) == found

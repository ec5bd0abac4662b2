"""A project of a user's own, outside the repository: what the documentation shows is written down there and run."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import gymnasium
import pytest

from envs.contract import CHECKS

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    *("budget=episodes", "budget.limit=128", "threads=1", "tracker=none", "algorithm.population=8", "algorithm.best=2"),
    *("model.hidden_size=32", "model.intermediate_size=48", "model.layers=2", "model.heads=2", "model.steps=0"),
    *("evaluation.episodes=8", "evaluation.points=1", "evaluation.samples=0", "checkpoint.keep=0"),
)


def shown_files(document: str) -> dict[str, str]:
    """The code blocks of a document that begin with their path as a comment."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return dict(blocks)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = shown_files("adding-an-algorithm.md")
    files["my_package/my_tasks.py"] = shown_files("adding-an-environment.md")["my_tasks.py"]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def train(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "train.py", *words],
        cwd=project,
        env=os.environ | {"PYTHONPATH": f".{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.parametrize(("smallest", "broken"), [(1, []), (0, ["garbage is not paid"])])
def test_a_users_own_dataset(tmp_path: Path, smallest: int, broken: list[str]) -> None:
    """It keeps the contract; where `0` is a right answer, one rule is broken in appearance, and says so."""
    rows = [
        {"question": f"Is {i} odd (1) or even (0), plus {smallest}?", "answer": str(i % 2 + smallest)}
        for i in range(100)
    ]
    path = tmp_path / "my_data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    make = partial(gymnasium.make, "envs.adapters:evotext/Dataset-v0", path=str(path), checker="exact")
    found = {name: wrong for name, check in CHECKS.items() if (wrong := check(make, 1))}
    assert list(found) == broken
    assert all("no fault if that is a right answer here" in wrong for wrong in found.values())


@pytest.mark.slow
def test_a_users_own_task_and_algorithm(project: Path) -> None:
    words = ("--config-dir", "my_conf", "env=my_task", "algorithm=my_es", *SMALL, "hydra.run.dir=runs/one")
    done = train(project, *words)
    assert done.returncode == 0, done.stderr
    summary = json.loads((project / "runs" / "one" / "summary.json").read_text())
    assert (summary["algorithm"], summary["env"], summary["status"]) == ("my_es", "my_task", "completed")
    assert summary["cost"]["episodes"] == 2 * 8 * 8

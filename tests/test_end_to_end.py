"""The commands as a user types them, on a smaller built-in model that is warmed up in a second."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.scripts_in_process import status_of
from tests.small_models import small_model

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["model.hidden_size=32", "model.intermediate_size=48", "model.layers=2", "model.heads=2", "model.steps=20"]
FEW = ["evaluation.episodes=8", "evaluation.points=2", "evaluation.samples=2", "threads=1"]
TINY_ALGORITHM = {
    "eggroll": ["algorithm.population=4", "algorithm.prompts=2"],
    "grpo": ["algorithm.prompts=2", "algorithm.group_size=2"],
    "ppo": ["algorithm.episodes=4", "algorithm.minibatches=1", "algorithm.epochs=1"],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def command(script: str, *words: str, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"EVOTEXT_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, f"scripts/{script}.py", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_a_sweep_its_comparison_an_evaluation_and_a_replay(tmp_path: Path, cache: Path) -> None:
    folders = []
    for (algorithm, words), env in zip(TINY_ALGORITHM.items(), cycle(["sort", "recall"]), strict=False):
        folder = tmp_path / f"{algorithm}-{env}"
        done = command(
            "train",
            f"algorithm={algorithm}",
            f"env={env}",
            "budget=updates",
            "budget.limit=2",
            f"hydra.run.dir={folder}",
            *SMALL,
            *FEW,
            *words,
            cache=cache,
        )
        assert done.returncode == 0, done.stderr
        assert "completed: held-out success" in done.stdout
        folders.append(folder)
    summary = json.loads((folders[0] / "summary.json").read_text())
    assert summary["algorithm"] == "eggroll" and summary["env"] == "sort" and summary["model"] == "tiny"
    AutoModelForCausalLM.from_pretrained(folders[0] / "model")
    tokenizer = AutoTokenizer.from_pretrained(folders[0] / "model")
    assert tokenizer.decode(tokenizer("sort 21")["input_ids"]) == "sort 21"

    compared = command("compare", *map(str, folders), f"out={tmp_path / 'report'}", cache=cache)
    assert compared.returncode == 0, compared.stderr
    for name in ("report.html", "report.md", "results.csv", "curves.svg"):
        assert (tmp_path / "report" / name).stat().st_size > 100

    measured = command("evaluate", f"run={folders[0]}", "evaluation.episodes=8", cache=cache)
    assert measured.returncode == 0, measured.stderr
    again = json.loads((folders[0] / "evaluation.json").read_text())
    assert again["success"] == summary["eval"]["success_after"], "the saved model is the one that was measured"

    replayed = command("train", f"replay={folders[1]}", f"hydra.run.dir={tmp_path / 'again'}", cache=cache)
    assert replayed.returncode == 0, replayed.stderr

    def figures(folder: Path) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in line.items() if "seconds" not in k} for line in lines]

    assert figures(folders[1]) == figures(tmp_path / "again")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
@pytest.mark.parametrize("algorithm", ["eggroll", "ppo"])
def test_any_hugging_face_model_by_path(tmp_path: Path, cache: Path, family: str, algorithm: str) -> None:
    small_model(family, torch.float32).save(tmp_path / "model")
    done = command(
        "train",
        f"algorithm={algorithm}",
        "model=hf",
        "model.dtype=float32",
        f"model.path={tmp_path / 'model'}",
        "budget=updates",
        "budget.limit=1",
        "env=recall",
        "env.max_new_tokens=3",
        f"hydra.run.dir={tmp_path / 'run'}",
        *FEW,
        *TINY_ALGORITHM[algorithm],
        cache=cache,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "completed"


@pytest.mark.slow
def test_control_c_ends_a_run_cleanly(tmp_path: Path, cache: Path) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "scripts/train.py", "algorithm=grpo", "budget=seconds", "budget.limit=600"),
            *(f"hydra.run.dir={tmp_path / 'run'}", *SMALL, *FEW, *TINY_ALGORITHM["grpo"]),
        ],
        cwd=ROOT,
        env=os.environ | {"EVOTEXT_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert out.splitlines()[-1] == f"to go on with it: python scripts/train.py resume={tmp_path / 'run'}"
    assert "Traceback" not in errors
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert len(metrics.read_text().splitlines()) > 3


TENSOR = ["model=hf", "model.path=a/b", "model.parallel=tensor"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["algorithm=egrol"], "eggroll"),
        (["env=srot"], "sort"),
        (["sede=1"], "seed"),
        (["algorithm.populaton=64"], "population"),
        (["algorithm.population=7"], "even"),
        (["algorithm.population=many"], "population"),
        (["algorithm.perturbation.rank=0"], "rank"),
        (["algorithm.sigma=-1"], "sigma"),
        (["algorithm=grpo", "algorithm.group_size=1"], "group_size"),
        (["algorithm=ppo", "algorithm.optimizer.lr=-1"], "optimizer"),
        (["budget.limit=nan"], "limit"),
        (["model=hf"], "model.path"),
        (["model=hf", "model.path=/no/such/folder"], "no such folder"),
        (["model=hf", "model.path=a/b", "model.parallel=fsdp"], "take model.parallel=tensor"),
        (
            ["model=hf", "model.path=a/b", "algorithm=grpo", "model.parallel=fsdp"],
            "model.parallel: expected null in a run of",
        ),
        ([*TENSOR, "algorithm=grpo"], "model.parallel: expected null with GRPO"),
        ([*TENSOR, "algorithm=scored_es"], "model.parallel: expected null with ScoredES"),
        ([*TENSOR, "adapter=lora"], "model.parallel: expected null with adapters"),
        ([*TENSOR, "algorithm/perturbation=guided"], "algorithm.perturbation: expected low_rank or full_rank"),
        ([*TENSOR, "algorithm.update=shared"], "algorithm.update: expected repeated with model.parallel=tensor"),
        ([*TENSOR, "algorithm.narrow_weights=stochastic"], "algorithm.narrow_weights: expected masters"),
        ([*TENSOR, "algorithm.optimizer._target_=torch.optim.Muon"], "expected one that steps on each entry by itself"),
        (["model=hf", "model.path=a/b", "model.parallel_size=2"], "model.parallel_size: expected null"),
        (["env.digits=0"], "digits"),
        (["model.context_length=16"], "context"),
    ],
)
def test_bad_input_is_one_line_and_status_2_before_anything_expensive(
    words: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EVOTEXT_CACHE", str(tmp_path / "cache"))
    status = status_of("train", *words, f"hydra.run.dir={tmp_path / 'run'}", monkeypatch=monkeypatch)
    errors = capfd.readouterr().err
    assert status == 2, errors
    lines = [line for line in errors.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), errors
    assert expected in lines[0]
    assert not (tmp_path / "cache").exists(), "the built-in model was asked for"


def test_a_missing_optional_package_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for package, word in (("cma", "algorithm=cma_es"), ("peft", "adapter=lora")):
        monkeypatch.setitem(sys.modules, package, None)
        assert status_of("train", word, f"hydra.run.dir={tmp_path / package}", monkeypatch=monkeypatch) == 2
        errors = capfd.readouterr().err
        assert errors.count("\n") == 1 and "pip install -c constraints.txt -e '.[" in errors
        assert errors.startswith(f"error: {word.partition('=')[0]}: expected the package {package}")

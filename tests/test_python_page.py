"""docs/python.md, run from top to bottom as a reader would, with tiny budgets; what needs the Hub is composed and checked."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import evotext
from evotext.api import tune as module

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
NEEDS_HUB = "# needs a model from the Hub\n"
OWN_LOOP = "POPULATION, MOST, seed = 128, 80, 0"
IN_A_BLOCK = {
    OWN_LOOP: "POPULATION, MOST, seed = 4, 1, 0",
    '["algorithm=eggroll"]': '["algorithm=eggroll", "algorithm.population=4"]',
}
MODEL = {"tiny": {"steps": 0, "hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 2}}
ALGORITHMS = {
    "grpo": {"prompts": 2, "group_size": 4},
    "eggroll": {"population": 4, "prompts": 2},
    "ppo": {"episodes": 8, "minibatches": 2, "epochs": 1},
}
tune = module.tune


class Composed(Exception):
    """A run that could start now."""


def small(**arguments: Any) -> Any:
    """The run that was asked for, but small."""
    settings: dict[str, Any] = {"threads": 1, "tracker": "none", "progress": False, "rows": 16}
    settings["budget"] = {"unit": "episodes", "limit": 64 if "resume" in arguments else 16}
    settings["evaluation"] = {"episodes": 8, "points": 2, "samples": 0}
    for key, own in {"model": MODEL, "algorithm": ALGORITHMS}.items():
        asked = arguments.get(key)
        asked = {"name": asked} if isinstance(asked, str) else asked
        if isinstance(asked, dict):
            settings[key] = asked | own[asked["name"]]
    return tune(**arguments | settings)


def composed(**arguments: Any) -> Any:
    """The configuration that was asked for, and no model."""

    def stop(*_: Any, **__: Any) -> Any:
        raise Composed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "assembled", stop)
        return tune(**arguments)


@pytest.mark.slow
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "tune", small)
    names: dict[str, Any] = {}
    ran = 0
    for block in BLOCKS:
        if block.startswith(NEEDS_HUB):
            assert "tune(" in block
        else:
            for shown, run in IN_A_BLOCK.items():
                block = block.replace(shown, run)
            exec(block, names)
            ran += 1
    assert ran == len(BLOCKS) - 2 and evotext.tune is small
    told = capsys.readouterr().out
    assert "did you mean sort?" in told and "mean return" in told and "of the held-out instances are solved" in told


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.startswith(NEEDS_HUB)], ids=["name", "object"])
def test_what_needs_the_hub_composes(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.small_models import small_model

    model = small_model("llama", torch.float32)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda name: model.network)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda name: model.tokenizer)
    with pytest.raises(Composed):
        exec(block, {"tune": composed})
    (config,) = tmp_path.rglob("config.yaml")
    assert ("Qwen/Qwen2.5-0.5B-Instruct" in config.read_text()) == ("model={" in block)


@pytest.mark.slow
@pytest.mark.learning
def test_cart_pole_is_solved(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = (block for block in BLOCKS if OWN_LOOP in block)
    names: dict[str, Any] = {}
    exec(block.replace(OWN_LOOP, f"POPULATION, MOST, seed = 128, 80, {seed}"), names)
    assert names["measured"](seed=30_000) >= 475
    assert names["es"].generation <= 80

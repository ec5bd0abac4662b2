"""`evotext plan`, and the warning of a run that is too large."""

import json
from pathlib import Path

import pytest
import torch
from evotext.commands.planning.configured import too_large
from evotext.commands.planning.memory import Forecast
from hydra.core.global_hydra import GlobalHydra

from evotext.cli.main import main
from evotext.models.random_weights import RandomModel
from scripts.commands.plan import in_bytes

MODEL = ("model=random", "model.size=1.5B", "model.dtype=bfloat16", "device=cpu")


def status(*words: str, command: str = "plan") -> object:
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as ended:
        main([command, *words])
    GlobalHydra.instance().clear()
    return ended.value.code


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr("sys.argv", ["/usr/bin/evotext"])


def test_a_model_of_billions_is_planned_without_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan.json"
    assert status(*MODEL, "algorithm=grpo", "env=countdown", "memory=24GB", f"out={out}") in (0, None)
    told, record = capsys.readouterr().out, json.loads(out.read_text())
    weights = record["weights"]
    assert weights == 1_543_714_304 and record["forecast"]["parts"]["optimizer moments"] == 8 * weights
    assert "24GB: does not fit" in told and not record["fits"]
    assert any(change["forecast"]["parts"]["weights"] for change in record["changes"])
    assert status(*MODEL, "algorithm=grpo", "model.parallel=fsdp", "devices=4", f"out={out}") in (0, None)
    assert json.loads(out.read_text())["forecast"]["parts"]["optimizer moments"] == 2 * weights


def test_what_is_no_memory_and_no_known_algorithm_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(*MODEL, "memory=much") == 2
    assert capsys.readouterr().err.startswith("error: memory: expected a number with MB, GB")
    assert status(*MODEL, "model.parallel=fsdp", "devices=2") == 2
    assert "take model.parallel=tensor" in capsys.readouterr().err
    assert status(*MODEL, "algorithm=cma_es") == 2
    assert "expected one built on EvolutionStrategy" in capsys.readouterr().err


def test_a_run_that_does_not_fit_is_warned_of() -> None:
    found = Forecast(parts={"weights": 3 * 10**9}, phase="update", phases={"update": 3 * 10**9})
    assert too_large(found, 3 * 10**9) == too_large(found, None) == ""
    assert too_large(found, 2 * 10**9).startswith(
        "warning: this run is forecast to need 3.0 GB at its peak (in the update)"
    )


@pytest.mark.parametrize(("free", "warned"), [(10**6, True), (10**12, False)])
def test_a_run_says_so_before_it_loads_weights(
    free: int, warned: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def load(model: RandomModel, device: torch.device) -> None:
        told.append(capsys.readouterr().err)
        raise ValueError("far enough")

    monkeypatch.setattr("evotext.commands.planning.configured.free_memory_bytes", lambda device: free)
    monkeypatch.setattr(RandomModel, "load", load)
    words = (
        "model=random",
        "model.size=1M",
        "model.dtype=float32",
        "tracker=none",
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    assert status(*words, command="train") == 2
    assert ("warning: this run is forecast to need" in told[0]) == warned


def test_memory_is_read_in_units() -> None:
    assert (in_bytes("80GB"), in_bytes("1.5 GiB")) == (80 * 10**9, 3 * 2**29)


def test_groups_that_hold_a_model_together_are_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan.json"

    def parts(*words: str) -> dict[str, int]:
        assert status(*MODEL, "algorithm=eggroll", "env=countdown", f"out={out}", *words) in (0, None)
        record = json.loads(out.read_text())
        assert record["weights"] == 1_543_714_304
        return record["forecast"]["parts"]

    whole, half = parts(), parts("model.parallel=tensor", "devices=4", "model.parallel_size=2")
    for part in ("weights", "float32 masters", "optimizer moments"):
        assert half[part] == pytest.approx(whole[part] / 2, rel=0.001)
    capsys.readouterr()
    assert status(*MODEL, "model.parallel=tensor", "devices=4", "model.parallel_size=3") == 2
    assert "parallel_size: expected a divisor of the run's 4 processes" in capsys.readouterr().err
    assert status(*MODEL, "algorithm=eggroll", "env=countdown", "memory=8GB") in (0, None)
    assert "model.parallel=tensor model.parallel_size=2, 2 processes" in capsys.readouterr().out


def test_demonstrations_are_no_rollouts(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    assert status(*MODEL, "algorithm=sft", "env=sort", f"out={out}") in (0, None)
    record = json.loads(out.read_text())
    assert "rollouts" not in record["forecast"]["phases"] and record["operations"]["rollouts"] == 0
    assert record["operations"]["update"] > 0 and record["forecast"]["parts"]["activations"] > 0

"""`model.dtype=auto`: measured, the same in all processes, said once."""

import pytest
import torch

from evotext.models import dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(("gain", "chosen"), [(6.0, torch.bfloat16), (1.4, torch.float32), (0.2, torch.float32)])
def test_bfloat16_is_taken_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gain: float, chosen: torch.dtype
) -> None:
    monkeypatch.setattr(dtype, "bfloat16_gain", lambda width: gain)
    dtype.say.cache_clear()
    assert [dtype.resolve("auto", CPU, 128) for _ in range(2)] == [chosen, chosen]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(chosen).removeprefix("torch.") in said and f"{gain:.1f} times" in said


@pytest.mark.parametrize(("name", "chosen"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_type_that_is_asked_for_is_taken_and_nothing_measured(
    monkeypatch: pytest.MonkeyPatch, name: dtype.DType, chosen: torch.dtype
) -> None:
    monkeypatch.setattr(dtype, "bfloat16_gain", lambda width: pytest.fail("measured"))
    assert dtype.resolve(name, CPU, 128) == chosen


def test_an_accelerator_gets_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtype, "bfloat16_gain", lambda width: pytest.fail("measured"))
    assert dtype.resolve("auto", torch.device("cuda"), 128) == torch.bfloat16


def test_the_gain_is_a_ratio_of_times_and_measured_once_for_each_width(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {torch.float32: 0.3, torch.bfloat16: 0.1}
    calls: list[int] = []

    def measured(kind: torch.dtype, width: int) -> float:
        calls.append(width)
        return seconds[kind]

    monkeypatch.setattr(dtype, "_seconds", measured)
    dtype.bfloat16_gain.cache_clear()
    assert [dtype.bfloat16_gain(width) for width in (64, 64, 128)] == pytest.approx([3.0, 3.0, 3.0])
    assert calls == [64, 64, 128, 128]
    dtype.bfloat16_gain.cache_clear()


def test_a_product_takes_some_time() -> None:
    assert all(0.0 < dtype._seconds(kind, 32) < 1.0 for kind in (torch.float32, torch.bfloat16))

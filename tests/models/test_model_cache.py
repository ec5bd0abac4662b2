"""The model cache: one build for parallel runs, damage noticed, nothing half-finished taken for whole."""

import multiprocessing
import os
from pathlib import Path

import pytest

from evotext.models.model_cache import ModelCache
from evotext.run_folder.manifest import MANIFEST


def build(folder: Path) -> None:
    (folder / "weights").write_bytes(b"12345")
    (folder / "config").write_text("{}")


def count_builds_of(cache: Path, key: str) -> None:
    def build_slowly(folder: Path) -> None:
        with (cache / "builds").open("a") as log:
            log.write("x")
        build(folder)

    ModelCache(str(cache)).get(key, build_slowly)


def refuse(folder: Path) -> None:
    raise AssertionError("built although it is there")


def test_a_model_is_built_once_and_found_again(tmp_path: Path) -> None:
    first = ModelCache(str(tmp_path)).get("key", build)
    assert (first / "weights").read_bytes() == b"12345"
    assert ModelCache(str(tmp_path)).get("key", refuse) == first
    assert ModelCache(str(tmp_path)).get("other", build) != first


def test_parallel_runs_build_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=count_builds_of, args=(tmp_path, "key")) for _ in range(6)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(30)
        assert run.exitcode == 0
    assert (tmp_path / "builds").read_text() == "x"


@pytest.mark.parametrize("file", ["weights", "config", MANIFEST])
@pytest.mark.parametrize("damage", ["changed", "emptied", "removed"])
def test_damage_is_noticed_and_repaired(
    tmp_path: Path, file: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ModelCache(str(tmp_path)).get("key", build)
    if damage == "removed":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(b"12346" if damage == "changed" else b"")
    ModelCache(str(tmp_path)).get("key", build)
    assert "damaged" in capsys.readouterr().err
    assert (folder / "weights").read_bytes() == b"12345"
    ModelCache(str(tmp_path)).get("key", refuse)


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        build(folder)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        ModelCache(str(tmp_path)).get("key", fail)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    ModelCache(str(tmp_path)).get("key", build)


def test_what_a_killed_build_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "key.building-1" / "model").mkdir(parents=True)
    (tmp_path / "another.building-1").mkdir()
    ModelCache(str(tmp_path)).get("key", build)
    assert sorted(path.name for path in tmp_path.glob("*.building-*")) == ["another.building-1"]


def test_the_folder_can_be_set_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOTEXT_CACHE", str(tmp_path / "by-variable"))
    assert ModelCache(None).get("key", build).parent == tmp_path / "by-variable"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cache_folder: expected a folder that can be written"):
        ModelCache(str(tmp_path / "file" / "cache")).get("key", build)
    assert os.listdir(tmp_path) == ["file"]

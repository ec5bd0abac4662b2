"""Hydra's records: flat settings, the words of the start, and damage."""

from pathlib import Path

import pytest
import yaml

from evotext.run_folder import names
from evotext.run_folder.configuration import hyperparameters, leaves, read_config, read_start

HYDRA = {
    "overrides": {"hydra": ["hydra.searchpath=[x]"], "task": ["seed=1"]},
    "runtime": {
        "choices": {"algorithm": "eggroll", "experiment": None},
        "config_sources": [{"path": "/mine", "provider": "command-line"}, {"path": "conf", "provider": "main"}],
    },
    "job": {"config_name": "config"},
}


def record(folder: Path, config: str = "a: 1", overrides: str = "[seed=1]", hydra: object = HYDRA) -> Path:
    (folder / names.HYDRA).mkdir(exist_ok=True)
    (folder / names.HYDRA / names.CONFIG).write_text(config)
    (folder / names.HYDRA / names.OVERRIDES).write_text(overrides)
    (folder / names.HYDRA / names.HYDRA_CONFIG).write_text(yaml.safe_dump({"hydra": hydra}))
    return folder


def test_leaves_keep_their_order_and_lists() -> None:
    nested = {"b": {"x": 1, "y": {"z": None}}, "a": [1, {"c": 2}], "empty": {}, 3: "three"}
    expected = [("b.x", 1), ("b.y.z", None), ("a", [1, {"c": 2}]), ("empty", {}), ("3", "three")]
    assert list(leaves(nested)) == expected
    assert list(leaves(nested, most=3)) == [("b.x", 1)], "looked at: the root, b and b.x"
    assert list(leaves("text")) == []


def test_a_tree_without_end_is_cut() -> None:
    found = list(leaves(yaml.safe_load("&a {c: 1, b: *a}"), most=100))
    assert found[:2] == [("c", 1), ("b.c", 1)] and len(found) == 50


def test_how_a_run_was_started(tmp_path: Path) -> None:
    start = read_start(record(tmp_path))
    assert (start.overrides, start.hydra_overrides) == (["seed=1"], ["hydra.searchpath=[x]"])
    assert (start.config_folders, start.config_name) == (["/mine"], "config")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ({"overrides": "{a: 1}"}, "overrides.yaml: expected a list of words"),
        ({"overrides": "[a"}, "overrides.yaml: while parsing"),
        (
            {"hydra": {k: v for k, v in HYDRA.items() if k != "job"}},
            "hydra.yaml: hydra.job.config_name: Field required",
        ),
        ({"hydra": 3}, "hydra.yaml: hydra.overrides.hydra: Field required"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, damage: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_start(record(tmp_path, **damage))


def test_a_damaged_configuration_has_no_hyperparameters(tmp_path: Path) -> None:
    assert hyperparameters(record(tmp_path, config="lr: 0.5")) == {"algorithm": "eggroll", "lr": 0.5}
    assert hyperparameters(record(tmp_path, config="[a")) == {} and read_config(tmp_path / "none") == {}

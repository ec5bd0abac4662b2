"""Trackers: what each of them wrote is read back by its own library."""

import json
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from evotext.run_folder.configuration import hyperparameters
from evotext.run_folder.schema import Status, Summary
from evotext.run_folder.writer import write_summary
from evotext.trackers.names import shared_names
from evotext.trackers.tensorboard import TensorBoard

CONFIG = {
    "algorithm": {"_target_": "optimizers.Eggroll", "sigma": 0.02, "exclude": [], "optimizer": {"lr": 0.001}},
    "env": {"digits": 5, "limit": None},
    "seed": 3,
    "device": "auto",
    "threads": 1,
}
SPENT = {"episodes": 64, "generated_tokens": 640, "seconds": 1.5, "flops": 1e9}
TRAIN: dict[str, Any] = {"kind": "train", "generation": 1, **SPENT, "reward": 0.25, "kl": float("nan")}
EVAL: dict[str, Any] = {"kind": "eval", "generation": 1, **SPENT, "eval/success": 0.75, "eval/pass@2": 0.5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a run that has just begun."""
    run = tmp_path / "sweep" / "0_eggroll_sort_3"
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    choices = {"algorithm": "eggroll", "env": "sort", "hydra/launcher": "basic", "experiment": None}
    (run / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": choices}}}))
    return run


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_MODE", "WANDB_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database takes many seconds to set up
    return


def report(tracker: Any, folder: Path, status: Status = "completed") -> None:
    """Drive a tracker as a run does."""
    tracker.log_transcripts(0, ["env> 21\nllm> 12", "env> 43\nllm> 43"])
    tracker.log(TRAIN)
    tracker.log(EVAL)
    write_summary(folder, Summary(status=status))
    tracker.close()


def test_hyperparameters_are_flat_and_say_what_is_computed(folder: Path, tmp_path: Path) -> None:
    assert hyperparameters(folder) == {
        "algorithm": "eggroll",
        "env": "sort",
        "algorithm.sigma": 0.02,
        "algorithm.exclude": "[]",
        "algorithm.optimizer.lr": 0.001,
        "env.digits": 5,
        "seed": 3,
    }
    assert hyperparameters(tmp_path) == {}


def test_figures_have_the_same_names_everywhere() -> None:
    spent = {f"spent/{key}": value for key, value in SPENT.items()}
    assert shared_names({**TRAIN, "kl": 0.5}) == {"train/reward": 0.25, "train/kl": 0.5, **spent}
    assert shared_names(EVAL) == {"eval/success": 0.75, "eval/pass@2": 0.5, **spent}


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_tensorboard_has_hyperparameters_and_figures(folder: Path, status: str) -> None:
    report(TensorBoard(folder), folder, status)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert {"eval/success", "train/reward"} <= set(events.Tags()["scalars"])
    assert [(point.step, point.value) for point in events.Scalars("eval/success")] == [(1, 0.75)]
    contents = events.PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(contents[metadata.SESSION_START_INFO_TAG])
    assert start.hparams["algorithm"].string_value == "eggroll"
    assert start.hparams["algorithm.optimizer.lr"].number_value == 0.001
    # With a list of its own, TensorBoard would take that of one run for all.
    assert metadata.EXPERIMENT_TAG not in contents
    assert (metadata.SESSION_END_INFO_TAG in contents) == (status == "completed")


def wandb_records(file: Path) -> Iterator[Any]:
    """The records that `wandb sync` would read: LevelDB's log format after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:  # the rest of a block
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(whole)
            whole = b""


@pytest.mark.slow
@pytest.mark.usefixtures("_offline")
def test_wandb_offline(folder: Path) -> None:
    pytest.importorskip("wandb")
    from evotext.trackers.wandb import WandB

    report(WandB(project="evotext", entity=None, group=None, mode="offline")(folder), folder)
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    config: dict[str, Any] = {}
    history, exits, group = [], [], ""
    for _ in range(400):  # another process writes it
        records = list(wandb_records(file))
        if records and records[-1].HasField("exit"):
            break
        time.sleep(0.05)
    for record in records:
        if record.HasField("run"):
            group = group or record.run.run_group
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        if record.HasField("history"):
            history.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item})
        if record.HasField("exit"):
            exits.append(record.exit.exit_code)
    assert (config["algorithm"], config["algorithm.sigma"], group) == ("eggroll", 0.02, "sweep")
    (row,) = [row for row in history if row.get("eval/success") is not None]
    assert (row["eval/success"], row["train/reward"], row["spent/episodes"], row["_step"]) == (0.75, 0.25, 64, 1)
    (table,) = folder.glob("wandb/offline-run-*/files/media/table/episodes_*.table.json")
    assert json.loads(table.read_text())["data"][0] == ["env> 21\nllm> 12"]
    assert exits == [0]
    assert (folder / "wandb_id.txt").read_text() in file.name


@pytest.mark.slow
@pytest.mark.usefixtures("_offline")
@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_without_a_server(folder: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    from evotext.trackers.mlflow import MLflow

    uri = (tmp_path / "mlflow").as_uri()
    opened = MLflow(experiment="mine", tracking_uri=uri)
    report(opened(folder), folder)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("mine")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("0_eggroll_sort_3", "FINISHED")
    assert (run.data.params["algorithm"], run.data.params["algorithm.sigma"]) == ("eggroll", "0.02")
    assert (run.data.metrics["eval/success"], run.data.metrics["eval/pass_at_2"]) == (0.75, 0.5)
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/reward")] == [1]
    (file,) = client.list_artifacts(run.info.run_id, "episodes")
    assert "llm> 12" in Path(client.download_artifacts(run.info.run_id, file.path)).read_text()
    report(opened(folder), folder, "interrupted")  # taken up again: the same run
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"


@pytest.mark.usefixtures("_offline")
def test_a_lost_server_does_not_end_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlflow")
    import mlflow

    from evotext.trackers.mlflow import MLflowRun

    class Lost:
        def __getattr__(self, name: str) -> Any:
            def call(*args: object, **kwargs: object) -> None:
                raise mlflow.exceptions.MlflowException("connection refused")

            return call

    report(MLflowRun(Lost(), "1", mlflow=mlflow, folder=folder), folder)
    assert capsys.readouterr().err == "note: MLflow is lost, the run goes on without it: connection refused\n"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_without_its_package_a_tracker_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from omegaconf import OmegaConf

    from evotext.cli.errors import ConfigError
    from evotext.cli.targets import build

    monkeypatch.setitem(sys.modules, name, None)
    conf = Path(__file__).parents[2] / "conf" / "tracker" / f"{name}.yaml"
    config = OmegaConf.create({"tracker": OmegaConf.load(conf)})
    with pytest.raises(
        ConfigError,
        match=rf"the package {name}, which is not installed.*pip install -c constraints.txt -e '\.\[{name}\]'",
    ):
        build(config, "tracker")

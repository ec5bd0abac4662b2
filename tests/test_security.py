"""Whatever comes from elsewhere stays data: a run's folder, a model's folder, a word of the command line."""

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from evotext.cli.messages import one_line, shown, without_secrets
from evotext.models.huggingface import HuggingFaceModel
from evotext.run_folder.lock import check_inside
from evotext.runner.checkpoints import CheckpointFolder
from tests.command_line_app import App
from tests.runner.small_runs import small_run
from tests.scripts_in_process import status_of
from tests.small_models import small_model

MARK = "raise SystemExit('the code of a stranger ran')"


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path)


@pytest.fixture
def recorded(app: App) -> Path:
    app("seed=4")
    return app.runs[0]


def also(run: Path, *words: str) -> None:
    """Write further words into the record of a run."""
    file = run / ".hydra" / "overrides.yaml"
    file.write_text(json.dumps([*OmegaConf.to_container(OmegaConf.load(file)), *words]))


@pytest.mark.parametrize("command", ["replay", "resume"])
@pytest.mark.parametrize("word", ["allow_custom_targets=true", "+algorithm={trust_remote_code: true}"])
def test_a_record_cannot_give_itself_leave(app: App, recorded: Path, command: str, word: str) -> None:
    also(recorded, word)
    outcome = app(f"{command}={recorded}")
    assert (outcome.status, len(app.seen)) == (2, 1)
    assert outcome.err.startswith(f"error: {command}: expected '{word}' to be said again")
    assert outcome.err.count("\n") == 1


def test_what_is_said_again_has_leave(app: App, recorded: Path) -> None:
    also(recorded, "allow_custom_targets=true")
    assert app(f"replay={recorded}", "allow_custom_targets=true").err == ""
    assert len(app.seen) == 2


@pytest.mark.parametrize(
    "word", ["--multirun", "hydra.run.dir=/elsewhere", "+hydra.callbacks.x._target_=os.getcwd", "hydra/launcher=joblib"]
)
def test_a_record_has_no_settings_of_hydra_and_no_flags(app: App, recorded: Path, word: str) -> None:
    also(recorded, word)
    outcome = app(f"replay={recorded}")
    assert (outcome.status, len(app.seen)) == (2, 1)
    assert "in its overrides.yaml" in outcome.err and outcome.err.count("\n") == 1


def test_configurations_that_came_with_a_run_need_leave(app: App) -> None:
    app.write("algorithm/mine.yaml", "{_target_: evotext.runner.budget.Budget, unit: updates, limit: 3}", root="mine")
    app(f"--config-dir={app.folder / 'mine'}", "algorithm=mine")
    run = app.runs[0]
    (app.folder / "mine").rename(run / "mine")
    hydra = run / ".hydra" / "hydra.yaml"
    hydra.write_text(hydra.read_text().replace(str(app.folder / "mine"), str(run / "mine")))
    outcome = app(f"replay={run}")
    assert outcome.status == 2 and "which came with the run" in outcome.err
    assert app(f"replay={run}", "--config-dir", str(run / "mine")).err == ""


def test_hydra_makes_nothing_that_a_word_names(app: App) -> None:
    outcome = app("+hydra.callbacks.x._target_=os.getcwd")
    assert (outcome.status, app.seen) == (2, [])
    assert outcome.err.startswith("error: expected settings of Hydra, got") and outcome.err.count("\n") == 1


def test_an_evaluation_makes_nothing_that_a_record_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    small_model("llama", torch.float32).save(tmp_path / "model")
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("env: {_target_: os.mkdir, path: made}")
    monkeypatch.chdir(tmp_path)
    assert status_of("evaluate", f"run={tmp_path}", monkeypatch=monkeypatch) == 2
    assert "error: env._target_: expected a class or function of evotext, envs" in capfd.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.fixture(scope="module")
def with_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose folder holds Python code of its own."""
    folder = tmp_path_factory.mktemp("model")
    small_model("llama", torch.float32).save(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "stranger",
        "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(MARK)
    return folder


def test_the_code_of_a_model_is_not_run(with_code: Path) -> None:
    model = HuggingFaceModel(
        path=str(with_code), dtype="float32", trust_remote_code=False, parallel=None, parallel_size=None
    )
    with pytest.raises(ValueError, match="path: expected a folder with a model"):
        model.outline()


def test_code_in_pickled_weights_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old models come as pickles, which transformers reads as nothing but tensors."""
    small_model("llama", torch.float32).save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nmkdir\n(S'made'\ntR.")
    monkeypatch.chdir(tmp_path)
    model = HuggingFaceModel(
        path=str(tmp_path), dtype="float32", trust_remote_code=False, parallel=None, parallel_size=None
    )
    with pytest.raises(Exception, match="(?i)weights.only"):
        model.load(torch.device("cpu"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints", "checkpoints/00000001/weights.safetensors"])
def test_links_that_lead_out_of_a_run_are_refused(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    run = tmp_path / "run"
    (run / name).parent.mkdir(parents=True)
    (run / name).symlink_to(outside)
    with pytest.raises(ValueError, match="resume: expected a run's folder with nothing but its own files, got a link"):
        check_inside(run)


def test_links_within_a_run_are_let_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "latest").symlink_to("file")
    check_inside(tmp_path)


def test_a_checkpoint_reads_nothing_outside_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_run(tmp_path, generations=1).train()
    newest = max((tmp_path / "checkpoints").iterdir())
    manifest = json.loads((newest / "manifest.json").read_text())
    (newest / "manifest.json").write_text(json.dumps(manifest | {"../../summary.json": "0"}))
    found: list[str] = []
    CheckpointFolder(tmp_path / "checkpoints").load(lambda _: "", found.append)
    assert any("its manifest names '../../summary.json', which is outside" in line for line in found)


@pytest.mark.parametrize("say", [without_secrets, one_line, shown])
def test_a_password_in_an_address_is_not_shown(say: object) -> None:
    said = say("at https://user:hunter2@host:5000/path and http://host/a@b")  # type: ignore[operator]
    assert "hunter2" not in said and "user" not in said
    assert "https://***@host:5000/path" in said and "http://host/a@b" in said


def test_a_failure_shows_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "hunter2")
    uri = "ftp://me:hunter2@localhost/x"
    words = ["model=random", "tracker=mlflow", f"tracker.tracking_uri={uri}", f"hydra.run.dir={tmp_path / 'run'}"]
    assert status_of("train", *words, monkeypatch=monkeypatch) == 2
    errors = capfd.readouterr().err
    assert "tracker" in errors and "hunter2" not in errors

"""Sweeps: the presets for Hydra's plugins compose and run, and a sweeper gets what it searches by."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn
from omegaconf import open_dict

from evotext.cli.errors import ConfigError
from evotext.cli.sweeps import PACKAGES, HowToCompare, expand_presets

ROOT = Path(__file__).resolve().parents[1]
PRESETS = [(group, name) for group, names in PACKAGES.items() for name in names]
CONFIGURATION = """
defaults: [override hydra/job_logging: none, override hydra/hydra_logging: none, _self_]
seed: 0
x: 0.0
evaluation: {split: test}
debug: false
hydra: {run: {dir: run}, sweep: {dir: sweep, subdir: '${hydra.job.num}'}}
"""
SCRIPT = """
import os
import sys
from pathlib import Path

from evotext.cli.command import run_hydra


def main(config):
    print(f"seed {config.seed} in process {os.getpid()}, {config.evaluation.split}", flush=True)
    if config.seed == 13:
        raise RuntimeError("out of luck")
    return -((config.x - 0.5) ** 2)


if __name__ == "__main__":
    run_hydra(main, sys.argv[1:], config_dir=Path(__file__).parent / "conf", config_name="config")
"""


def needs(name: str) -> None:
    """Skip the test where the plugin is not installed."""
    package = next(names[name] for names in PACKAGES.values() if name in names)
    try:
        version(package)
    except PackageNotFoundError:
        pytest.skip(f"needs {package}")


@dataclass
class Sweep:
    """A small script beside the project's presets."""

    folder: Path

    def __post_init__(self) -> None:
        shutil.copytree(ROOT / "conf" / "hydra", self.folder / "conf" / "hydra")
        (self.folder / "conf" / "config.yaml").write_text(CONFIGURATION)
        (self.folder / "train.py").write_text(SCRIPT)

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "train.py", "-m", *words],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


@pytest.mark.parametrize(
    ("started", "command"),
    [
        (str(ROOT / "scripts" / "train.py"), f"python {ROOT / 'scripts' / 'compare.py'}"),
        ("/usr/bin/evotext", "evotext compare"),
        (str(ROOT / "evotext" / "__main__.py"), "python -m evotext compare"),
    ],
)
def test_the_end_of_a_sweep_says_how_to_compare_it(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    started: str,
    command: str,
) -> None:
    """The hint names the way in which this command was started."""
    monkeypatch.setattr(sys, "argv", [started])
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", [f"hydra.sweep.dir='{tmp_path}/a b'"], return_hydra_config=True)
    Callbacks(config).on_multirun_end(config=config, config_name="config")
    folder = f"{tmp_path}/a b"
    said = capsys.readouterr().out
    assert said == f"to compare these runs: {command} '{folder}' 'out={folder}/report'\n"


def test_a_sweep_says_how_long_the_rest_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told after each run but the last, where one follows the other; not after a single run."""
    now = iter([100.0, 160.0, 220.0, 400.0])
    monkeypatch.setattr("evotext.cli.sweeps.time.monotonic", lambda: next(now))
    GlobalHydra.instance().clear()
    words = ["seed=1,2,3", "algorithm=grpo", "hydra.mode=MULTIRUN"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", ["hydra.mode=MULTIRUN"], return_hydra_config=True)
    with open_dict(config):
        config.hydra.overrides.task = words
    callback = HowToCompare()
    callback.on_multirun_start(config=config)
    for _ in range(3):
        callback.on_job_end(config=config, job_return=JobReturn())
    assert capsys.readouterr().out.splitlines() == [
        "1 of 3 runs, about 2.0 min left",
        "2 of 3 runs, about 1.0 min left",
    ]
    with open_dict(config):
        config.hydra.mode = "RUN"
    callback.on_job_end(config=config, job_return=JobReturn())
    assert capsys.readouterr().out == ""


def test_every_preset_is_of_a_known_plugin() -> None:
    files = {(file.parent.name, file.stem) for file in (ROOT / "conf" / "hydra").rglob("*.yaml")}
    assert files == {(group, f"{name}_preset") for group, name in PRESETS}


@pytest.mark.parametrize(("group", "name"), PRESETS)
def test_a_preset_composes_on_its_plugin(group: str, name: str) -> None:
    needs(name)
    (word,) = expand_presets([f"hydra/{group}={name}"])
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", [word, "hydra.job.num=0", "hydra.job.id=0"], return_hydra_config=True)
    chosen = config.hydra[group]
    module = PACKAGES[group][name].replace("-", "_")
    assert chosen._target_.startswith(f"hydra_plugins.{module}.")
    preset = yaml.safe_load((ROOT / "conf" / "hydra" / group / f"{name}_preset.yaml").read_text())
    settings = {key: value for key, value in preset.items() if key not in ("defaults", "ray", "params", "direction")}
    assert settings == {key: chosen[key] for key in settings}


def test_a_plugin_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("evotext.cli.sweeps.version", missing)
    with pytest.raises(ConfigError, match="joblib needs a package that is not installed; pip install hydra-joblib-l"):
        expand_presets(["seed=1", "hydra/launcher=joblib"])


@pytest.mark.parametrize("word", ["hydra/launcher=basic", "hydra/launcher=mine", "hydra/sweeper=joblib", "seed=joblib"])
def test_other_words_stay(word: str) -> None:
    assert expand_presets([word]) == [word]


def test_an_experiment_may_change_anything_and_the_command_line_wins(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    recipe = "# @package _global_\ndefaults: [override /env: recall]\nseed: 7\nthreads: 2\nenv: {delay: 9}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(recipe)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        words = [f"hydra.searchpath=[{tmp_path}]", "experiment=mine", "threads=3"]
        config = compose("config", words)
    assert (config.env.name, config.env.delay, config.seed, config.threads) == ("recall", 9, 7, 3)


def test_the_recipe_for_recall_sweeps_its_delay() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", ["experiment=recall_delay"], return_hydra_config=True)
    assert config.env.name == "recall"
    assert config.hydra.sweeper.params["env.delay"] == "1,2,4,8,16"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["joblib", "submitit_local"])
def test_a_launcher_runs_every_job_and_names_each_that_fails(sweep: Sweep, name: str) -> None:
    """Jobs run in other processes, in batches of two: one has a bad setting, one raises in the middle."""
    needs(name)
    done = sweep(f"hydra/launcher={name}", "seed=x,1,13,2", "hydra.sweeper.max_batch_size=2")
    folder = sweep.folder / "sweep"
    printed = done.stdout + "".join(file.read_text() for file in folder.glob(".submitit/*/*_log.out"))
    assert "seed 1 in process " in printed and "seed 2 in process " in printed
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first == "error: job 0 (seed=x): seed: expected an integer, got 'x'"
    assert second.startswith("error: job 2 (seed=13): RuntimeError: out of luck (traceback in ")
    assert (folder / "0" / "error.txt").read_text() == "seed: expected an integer, got 'x'\n"
    assert "Traceback" in (folder / "2" / "error.txt").read_text()


@pytest.mark.slow
def test_optuna_searches_for_the_greatest(sweep: Sweep) -> None:
    """Trials are judged on validation instances."""
    needs("optuna")
    words = ("hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=0", "hydra.sweeper.n_trials=8", "x=interval(-2,3)")
    done = sweep(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("validation") == 8
    results = yaml.safe_load((sweep.folder / "sweep" / "optimization_results.yaml").read_text())
    assert -0.25 < results["best_value"] <= 0.0
    assert results["best_params"]["x"] == pytest.approx(0.5, abs=0.5)


@pytest.mark.slow
def test_optuna_goes_on_after_a_trial_that_failed(sweep: Sweep) -> None:
    needs("optuna")
    sampler = ("hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0", "hydra.sweeper.n_trials=6")
    done = sweep("hydra/sweeper=optuna", *sampler, "seed=choice(13,1)", "x=0.25")
    tried = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("seed ")]
    assert len(tried) == 6 and set(tried) == {"13", "1"}
    named = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(named) == tried.count("13") > 0
    assert all("seed=13" in line and "RuntimeError: out of luck" in line for line in named)
    assert done.returncode == 1
    results = yaml.safe_load((sweep.folder / "sweep" / "optimization_results.yaml").read_text())
    assert results["best_value"] == -0.0625

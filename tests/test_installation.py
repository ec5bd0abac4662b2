"""The installed package works away from the repository, beside folders of a user's own with the same names."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = {
    "envs": "envs",
    "optimizers": "optimizers",
    "baselines": "baselines",
    "reports": "reports",
    "commands": "scripts/commands",
    "conf": "conf",
}
SMALL = (
    *("model.steps=2", "model.hidden_size=32", "model.intermediate_size=48", "model.layers=2", "model.heads=2"),
    *("budget=updates", "budget.limit=2", "threads=1", "algorithm.population=4", "algorithm.prompts=2"),
    *("evaluation.episodes=8", "evaluation.points=1", "evaluation.samples=0", "hydra.run.dir=runs/one"),
)


def run(*words: str | Path, cwd: Path, **variables: str) -> str:
    """Return what a command prints. It sees no repository: neither by its folder nor by PYTHONPATH."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment | variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as a clone has it; building leaves folders behind."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("evotext", "envs", "optimizers", "baselines", "reports", "conf", "scripts"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index")
    run(*pip, "--wheel-dir", folder, source, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


def expected_files(source: Path) -> set[str]:
    """Every module, template and configuration, by its place in the wheel."""
    folders: Mapping[str, Path] = {"evotext": source / "evotext"} | {
        f"evotext/{part}": source / place for part, place in PARTS.items()
    }
    return {
        f"{part}/{file.relative_to(folder).as_posix()}"
        for part, folder in folders.items()
        for file in folder.rglob("*")
        if file.is_file() and file.suffix != ".pyi"
    }


def test_the_wheel_holds_evotext_and_nothing_else(wheel: Path, source: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected_files(source)
    assert {"evotext/envs/sort.py", "evotext/commands/train.py", "evotext/conf/algorithm/eggroll.yaml"} <= names
    (told,) = (n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("entry_points.txt"))
    assert "evotext = evotext.cli.main:main" in zipfile.ZipFile(wheel).read(told).decode()


def environment(folder: Path, *install: str | Path) -> Path:
    """A fresh environment with evotext installed, and what it needs from here; the folder of its programs."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    (packages,) = folder.glob("lib/python*/site-packages")
    torch = find_spec("torch")
    assert torch is not None and torch.origin is not None
    # A line of a .pth file adds a folder and reads no .pth file in it: an evotext that is installed here stays out.
    (packages / "here.pth").write_text(str(Path(torch.origin).parents[1]))
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--quiet", "--python", python, "install", "--no-deps", "--no-index")
    run(*pip, "--no-build-isolation", *install, cwd=folder.parent)
    return folder / "bin"


def users_project(folder: Path) -> Path:
    """A project whose own folders have the names of ours."""
    for name in ("envs", "optimizers", "baselines", "reports", "commands"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise SystemExit('the user has {name} too')")
    return folder


@pytest.mark.slow
def test_it_runs_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    programs = environment(tmp_path / "env", wheel)
    project = users_project(tmp_path / "project")
    variables = {"PYTHONPATH": ".", "EVOTEXT_CACHE": str(tmp_path / "cache")}
    told = run(programs / "evotext", "train", *SMALL, cwd=project, **variables)
    assert told.startswith("completed: ") and f"->  {project / 'runs' / 'one'}" in told
    summary = json.loads((project / "runs" / "one" / "summary.json").read_text())
    assert (summary["algorithm"], summary["env"], summary["status"]) == ("eggroll", "sort", "completed")

    evaluate = ("evaluate", "run=runs/one", "evaluation.episodes=8", "evaluation.samples=0")
    assert "runs/one/evaluation.json" in run(programs / "evotext", *evaluate, cwd=project, **variables)
    assert "Report: out/report.html" in run(
        programs / "evotext", "compare", "runs", "out=out", cwd=project, **variables
    )
    code = "import gymnasium; print(gymnasium.make('evotext.envs:evotext/Sort-v0').spec.id)"
    assert run(programs / "python", "-c", code, cwd=project, **variables) == "evotext/Sort-v0\n"
    code = """import gymnasium
envs = gymnasium.make_vec('evotext.envs:evotext/Sort-v0', num_envs=3)
envs.reset(seed=0)
print(envs.step(envs.action_space.sample())[1].shape)"""
    assert run(programs / "python", "-c", code, cwd=project, **variables) == "(3,)\n"
    code = "from evotext import tune; tune(env='srot')"
    failed = subprocess.run(
        [programs / "python", "-c", code], cwd=project, capture_output=True, text=True, env=os.environ | variables
    )
    assert failed.stderr.endswith("got 'srot'; did you mean sort?\n"), failed.stderr

    completion = "eval \"$(evotext -sc install=bash)\"; COMP_LINE='evotext train algorithm=open' COMP_CWORD=2"
    bash = f"{completion}; hydra_bash_completion; echo ${{COMPREPLY[@]}}"
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    assert run("bash", "-c", bash, cwd=project, PATH=path) == "algorithm=openai_es\n"


@pytest.mark.slow
def test_it_runs_as_an_editable_installation(source: Path, tmp_path: Path) -> None:
    programs = environment(tmp_path / "env", "--editable", source)
    project = users_project(tmp_path / "project")
    assert "ok      seeds decide" in run(programs / "evotext", "check-env", "env=sort", cwd=project, PYTHONPATH=".")
    code = "import evotext, envs, optimizers; print(evotext.envs is envs, optimizers.__file__)"
    assert run(programs / "python", "-c", code, cwd=tmp_path) == f"True {source / 'optimizers' / '__init__.py'}\n"


BOTH_NAMES = """
import gymnasium
{first}
import envs.adapters.discrete, evotext.envs.adapters.discrete
import optimizers.perturbations as short, evotext.optimizers.perturbations as long

assert evotext.envs is envs and short is long
assert envs.adapters.discrete is evotext.envs.adapters.discrete
made = [type(gymnasium.make(f"{{module}}:evotext/Sort-v0").unwrapped) for module in ("envs", "evotext.envs")]
assert made[0] is made[1]
print(envs.__name__, envs.__spec__.name)
"""


@pytest.mark.parametrize(
    ("first", "name"),
    [("import envs", "envs"), ("import evotext.envs", "evotext.envs"), ("import evotext, envs", "evotext.envs")],
)
def test_both_names_of_a_part_are_one_module_in_a_clone(first: str, name: str) -> None:
    """From the repository's root, both names mean one module, whichever comes first."""
    assert run(sys.executable, "-W", "error", "-c", BOTH_NAMES.format(first=first), cwd=ROOT) == f"{name} {name}\n"


def test_a_users_own_folder_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("MINE = True")
    code = "import evotext.envs, envs; print(envs.MINE, evotext.envs.TextEnv.__module__)"
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    assert run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=path) == "True evotext.envs.text_env\n"

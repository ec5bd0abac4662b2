"""Rules that hold across the packages: who imports whom, configurations that fit the code, nothing that runs data."""

import ast
import configparser
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from evotext.cli.checks import Root, check, check_targets
from evotext.cli.errors import ConfigError

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
PACKAGES = ("evotext", "reports", "envs", "optimizers", "baselines")
LONGEST_FILE = 400

MODULES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))
PRIMARY = sorted(CONF.glob("*.yaml"))
CHOICES = sorted(set(CONF.rglob("*.yaml")) - set(PRIMARY))
# Calls through which data could run code.
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.load",
    "torch.save",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "dist.all_gather_object",
    "dist.gather_object",
    "dist.broadcast_object_list",
    "dist.scatter_object_list",
    "yaml.load",
}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "marshal", "shelve", "joblib", "cloudpickle"}


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imports(source: str, package: str = "") -> Iterator[str]:
    """Full names of the modules that this source imports, wherever in it; `package` resolves relative ones."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            yield ".".join([*parents, *filter(None, [node.module])])


def calls(source: str) -> Iterator[str]:
    """Dotted names of everything that this source calls."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield ast.unparse(node.func)


def trespasses(source: str, package: str) -> list[str]:
    """Imports that a module of this package may not have."""
    others = {*PACKAGES, "scripts", "tests"} - {package} - (set() if package == "evotext" else {"evotext"})
    found = {name for name in imports(source, package) if name.split(".")[0] in others}
    if package == "reports":  # a report starts fast, and reads what a run wrote and nothing else
        found |= {name for name in imports(source) if _below(name, "evotext", but="evotext.run_folder")}
    return sorted(found)


def _below(name: str, package: str, *, but: str) -> bool:
    """Whether a module is in a package and not in that part of it."""
    return f"{name}.".startswith(f"{package}.") and not f"{name}.".startswith(f"{but}.")


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_packages_import_only_what_they_may(file: Path) -> None:
    assert trespasses(file.read_text(), file.relative_to(ROOT).parts[0]) == []


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("evotext", "import envs"),
        ("evotext", "def f():\n    from optimizers.eggroll import Eggroll"),
        ("envs", "from baselines import PPO"),
        ("optimizers", "import evotext, envs.sort as s"),
        ("baselines", "from tests.small_models import small_model"),
        ("reports", "from evotext.types import Cost"),
        ("reports", "import evotext.runner.budget"),
        ("reports", "from envs.sort import Sort"),
    ],
)
def test_the_import_rule_is_enforced(package: str, source: str) -> None:
    assert len(trespasses(source, package)) == 1


@pytest.mark.parametrize("file", sorted((ROOT / "evotext" / "run_folder").glob("*.py")), ids=name_of)
def test_a_runs_folder_knows_nothing_of_what_runs(file: Path) -> None:
    found = set(imports(file.read_text(), "evotext.run_folder"))
    assert [name for name in found if _below(name, "evotext", but="evotext.run_folder")] == []


def test_reports_and_run_folders_load_no_torch() -> None:
    """Whatever they import brings it in neither."""
    files = [*(ROOT / "reports").rglob("*.py"), *(ROOT / "evotext" / "run_folder").rglob("*.py")]
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    code = "import importlib, sys\n" + "".join(f"importlib.import_module({name!r})\n" for name in sorted(modules))
    heavy = {"torch", "transformers", "tensorboard", "hydra", "omegaconf", "gymnasium"}
    code += f"print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", ""), done.stderr


def test_dependencies_are_those_that_are_imported() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    declared = {re.split(r"[<>=!~;\[ ]", line)[0] for line in setup["options"]["install_requires"].split()}
    lines = [
        line for extra, of_it in setup["options.extras_require"].items() if extra != "test" for line in of_it.split()
    ]
    optional = {re.split(r"[<>=!~;\[ ]", line)[0] for line in lines}
    known = importlib.metadata.packages_distributions()
    roots = {name.split(".")[0] for file in [*MODULES, *SCRIPTS] for name in imports(file.read_text())}
    beside_scripts = {entry.stem for entry in (ROOT / "scripts").iterdir()}
    foreign = roots - {*PACKAGES, *beside_scripts, *sys.stdlib_module_names}
    used = {re.sub(r"[-_.]+", "-", known.get(root, [root])[0]).lower() for root in foreign}
    # TensorBoard is what torch.utils.tensorboard imports.
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in declared} == used - optional | {"tensorboard"}


@pytest.mark.parametrize("file", [*MODULES, *SCRIPTS], ids=name_of)
def test_nothing_runs_or_unpickles_data(file: Path) -> None:
    source = file.read_text()
    assert not FORBIDDEN_CALLS & set(calls(source))
    assert not FORBIDDEN_MODULES & {name.split(".")[0] for name in imports(source)}
    assert "shell=True" not in source
    assert "allow_pickle=True" not in source


def test_calls_finds_them() -> None:
    assert {"eval", "torch.load"} <= set(calls("x = [torch.load(f, weights_only=eval('1'))]\nmodel.eval()"))
    assert "eval" not in set(calls("model.eval()"))


@pytest.mark.parametrize("file", [*MODULES, *SCRIPTS], ids=name_of)
def test_files_are_short_and_named_by_what_they_are(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= LONGEST_FILE
    assert file.stem not in {"utils", "util", "common", "misc"}


def composed(primary: str, *overrides: str) -> DictConfig:
    """A configuration as a command line would get it, with whatever is mandatory filled in."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(primary, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    for key in mandatory(OmegaConf.to_container(config), ""):
        OmegaConf.update(config, key, "something")
    return config


def mandatory(node: object, path: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from mandatory(value, f"{path}.{key}" if path else key)
    elif node == "???":
        yield path


@pytest.fixture(autouse=True)
def _no_hydra_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)


@pytest.mark.parametrize("file", PRIMARY, ids=name_of)
def test_commands_compose_and_fit_the_code(file: Path) -> None:
    check(composed(file.stem), Root.read(file))


@pytest.mark.parametrize("file", CHOICES, ids=name_of)
def test_choices_compose_and_fit_the_code(file: Path) -> None:
    group = file.parent.relative_to(CONF).as_posix()
    root = Root.read(CONF / "config.yaml")
    if group in root.groups:
        check(composed("config", f"{group}={file.stem}"), root)
    else:  # a group within a group, or another command's
        check_targets(OmegaConf.to_container(OmegaConf.load(file)))


def test_a_configuration_that_does_not_fit_is_found() -> None:
    config = composed("config")
    with open_dict(config):
        config.algorithm.populaton = 3
    with pytest.raises(ConfigError, match="did you mean population"):
        check(config, Root.read(CONF / "config.yaml"))

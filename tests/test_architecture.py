"""Rules that hold across the packages: who imports whom, configurations that fit the code, nothing that runs data."""

import ast
import configparser
import graphlib
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

import evotext.cli.several_tasks  # noqa: F401 - makes the resolver that conf/env/mixture.yaml names
from evotext.cli.checks import check
from evotext.cli.errors import ConfigError
from evotext.cli.targets import check_targets
from evotext.cli.words import Root
from evotext.folders import FOLDERS

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
PACKAGES = ("evotext", "reports", "envs", "optimizers", "baselines")
LONGEST_FILE = 300

MODULES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))
COMMANDS = sorted((ROOT / "scripts" / "commands").rglob("*.py"))
PRIMARY = sorted(file for file in CONF.glob("*.yaml") if "defaults:" in file.read_text())
CHOICES = sorted(CONF.glob("*/**/*.yaml"))
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
    """Full names of what this source imports, wherever in it; `package` resolves relative ones.

    Of `from a import b` that is `a.b`: nobody but the importer knows whether b is a module. The parts of evotext are named by
    their folders, `envs` for `evotext.envs`.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (by_folder(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *filter(None, [node.module])])
            yield from (by_folder(f"{module}.{alias.name}") for alias in node.names)


def by_folder(name: str) -> str:
    part = name.removeprefix("evotext.").split(".")[0]
    return name.removeprefix("evotext.") if part in FOLDERS else name


def package_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).parent.parts)


def calls(source: str) -> Iterator[str]:
    """Dotted names of everything that this source calls."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield ast.unparse(node.func)


def trespasses(source: str, package: str) -> list[str]:
    """Imports that a module of this package may not have: of another part, and of its own part by its name.

    By its name, because an installed part has another name than in a clone.
    """
    root = package.split(".")[0]
    others = {*PACKAGES, "scripts", "commands", "tests"} - ({"evotext"} if root != "scripts" else {*PACKAGES})
    found = {name for name in imports(source, package) if name.split(".")[0] in others}
    relative = {name for name in imports("\n".join(relative_lines(source)), package) if name.split(".")[0] == root}
    if root == "reports":  # a report starts fast, and reads what a run wrote and nothing else
        found |= {name for name in imports(source, package) if _below(name, "evotext", but="evotext.run_folder")}
    return sorted(found - relative)


def _below(name: str, package: str, *, but: str) -> bool:
    """Whether a module is in a package and not in that part of it."""
    return f"{name}.".startswith(f"{package}.") and not f"{name}.".startswith(f"{but}.")


def relative_lines(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield ast.unparse(node)


@pytest.mark.parametrize("file", [*MODULES, *COMMANDS], ids=name_of)
def test_packages_import_only_what_they_may(file: Path) -> None:
    assert trespasses(file.read_text(), package_of(file)) == []


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("evotext", "import envs"),
        ("evotext.cli", "from evotext.envs import sort"),
        ("evotext", "from evotext import envs"),
        ("evotext", "def f():\n    from optimizers.eggroll import Eggroll"),
        ("envs", "from baselines import PPO"),
        ("envs", "from ..baselines import PPO"),
        ("envs", "from envs.sort import Sort"),
        ("envs.adapters", "from evotext.envs.sort import Sort"),
        ("optimizers", "import evotext, envs.sort as s"),
        ("baselines", "from tests.small_models import small_model"),
        ("reports", "from scripts.commands import compare"),
        ("reports", "from evotext.types import Cost"),
        ("reports", "import evotext.runner.budget"),
        ("reports", "from envs.sort import Sort"),
    ],
)
def test_the_import_rule_is_enforced(package: str, source: str) -> None:
    assert len(trespasses(source, package)) == 1


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("envs.adapters", "from ..sort import Sort"),
        ("reports", "from . import runs\nfrom evotext.run_folder import names"),
        ("baselines", "import evotext.types"),
        ("scripts.commands", "from evotext.envs import contract\nfrom . import compare"),
    ],
)
def test_the_import_rule_lets_pass(package: str, source: str) -> None:
    assert trespasses(source, package) == []


@pytest.mark.parametrize("file", sorted((ROOT / "evotext" / "run_folder").glob("*.py")), ids=name_of)
def test_a_runs_folder_knows_nothing_of_what_runs(file: Path) -> None:
    found = set(imports(file.read_text(), "evotext.run_folder"))
    assert [name for name in found if _below(name, "evotext", but="evotext.run_folder")] == []


def test_reports_and_run_folders_load_no_torch() -> None:
    """Nothing that they import brings it in either."""
    files = [*(ROOT / "reports").rglob("*.py"), *(ROOT / "evotext" / "run_folder").rglob("*.py")]
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    code = "import importlib, sys\n" + "".join(f"importlib.import_module({name!r})\n" for name in sorted(modules))
    heavy = {"torch", "transformers", "tensorboard", "hydra", "omegaconf", "gymnasium"}
    code += f"print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", ""), done.stderr


def circle(imported: Mapping[str, Iterable[str]]) -> list[str]:
    """Modules that import each other, each the next and the last the first; empty if there are none."""
    sorter = graphlib.TopologicalSorter(imported)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other() -> None:
    """Imports within functions count: they hide a circle and do not end it."""
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in [*MODULES, *COMMANDS]}
    modules = {name: file for name, file in modules.items() if file.stem != "__init__"}
    imported = {
        name: {
            known
            for found in imports(file.read_text(), package_of(file))
            for known in (found, found.rpartition(".")[0])
            if known in modules and known != name
        }
        for name, file in modules.items()
    }
    assert len(modules) > 100 and sum(map(len, imported.values())) > 200
    assert circle(imported) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": ["b"], "b": ["c"], "c": []}) == []
    assert set(circle({"a": ["b"], "b": ["c"], "c": ["a"]})) == {"a", "b", "c"}


def test_dependencies_are_those_that_are_imported() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    declared = {re.split(r"[<>=!~;\[ ]", line)[0] for line in setup["options"]["install_requires"].split()}
    lines = [
        line for extra, of_it in setup["options.extras_require"].items() if extra != "test" for line in of_it.split()
    ]
    optional = {re.split(r"[<>=!~;\[ ]", line)[0] for line in lines}
    known = importlib.metadata.packages_distributions()
    roots = {
        name.split(".")[0] for file in [*MODULES, *SCRIPTS] for name in imports(file.read_text(), package_of(file))
    }
    ours = {*PACKAGES, "scripts", *(folder.name for folder in (ROOT / "scripts").iterdir() if folder.is_dir())}
    foreign = roots - ours - set(sys.stdlib_module_names)
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


def settings_named(source: str) -> list[str]:
    """Places in the configuration of an algorithm that this source's strings spell out; file names are none."""
    words = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    found = [name for word in words if isinstance(word, str) for name in re.findall(r"\balgorithm\.[a-z_]+", word)]
    return [name for name in found if name != "algorithm.safetensors"]


def test_library_code_does_not_know_where_it_stands_in_a_configuration() -> None:
    """Library code names its argument; the command line puts the place before it. Advice to the user has the place."""
    aware = {
        "evotext/api/tune.py",
        "evotext/api/words.py",
        "evotext/cli/errors.py",
        "evotext/cli/replay.py",
        "optimizers/probe/forecast.py",
    }
    files = [file for file in MODULES if name_of(file) not in aware]
    assert {name_of(file): found for file in files if (found := settings_named(file.read_text()))} == {}
    assert settings_named('f"raise algorithm.prompts={x}"') == ["algorithm.prompts"]


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

"""The places of evotext's parts: below the package where it is installed, in the folders beside it in a clone.

`evotext.envs`, `evotext.optimizers`, `evotext.baselines` and `evotext.reports` are importable in both. In a clone they have
their short names too (`envs`, ...), under which editors, mypy and the tests see them: the same modules, whichever name is
imported first. Where it is installed there are no short names, since other projects have folders of the same names.
docs/architecture.md says what else was tried.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location, spec_from_loader
from pathlib import Path
from types import ModuleType

_PACKAGE = Path(__file__).resolve().parent
_CLONE = {
    "envs": "envs",
    "optimizers": "optimizers",
    "baselines": "baselines",
    "reports": "reports",
    "commands": "scripts/commands",
    "conf": "conf",
}
INSTALLED = (_PACKAGE / "envs").is_dir()
FOLDERS = {part: _PACKAGE / part if INSTALLED else _PACKAGE.parent / place for part, place in _CLONE.items()}
SHORT_NAMES = () if INSTALLED else ("envs", "optimizers", "baselines", "reports")


def is_own(module: str) -> bool:
    """Return whether an imported module is the project's, whatever it is called."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and any(Path(file).is_relative_to(folder) for folder in (_PACKAGE, *FOLDERS.values()))


class _Folders(MetaPathFinder):
    """Finds the parts in a clone, and sees to it that both names of a part mean one module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        part = fullname.removeprefix("evotext.").partition(".")[0]
        if part not in FOLDERS:
            return None
        if fullname == f"evotext.{part}":
            return _same(fullname, part) if is_own(part) else self._spec(fullname, part)
        if fullname == part:
            found = PathFinder.find_spec(part) if part in SHORT_NAMES else None
            users = part not in SHORT_NAMES or (
                found is not None and found.origin != str(FOLDERS[part] / "__init__.py")
            )
            return None if users else _same(fullname, f"evotext.{part}")
        real = f"{sys.modules[parent].__name__}.{name}"
        return None if real == fullname else _same(fullname, real)

    def _spec(self, fullname: str, part: str) -> ModuleSpec | None:
        folder = FOLDERS[part]
        return spec_from_file_location(fullname, folder / "__init__.py", submodule_search_locations=[str(folder)])


class _Same(Loader):
    """Gives a module a second name."""

    def __init__(self, real: str) -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._real)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put that of the second name there


def _same(fullname: str, real: str) -> ModuleSpec | None:
    return spec_from_loader(fullname, _Same(real))


def find() -> None:
    """Make the parts of a clone importable. Nothing is to be done where evotext is installed."""
    if not INSTALLED and not any(isinstance(finder, _Folders) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Folders())

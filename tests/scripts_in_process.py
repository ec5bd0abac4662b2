"""Run a script as a command line does, but in this process, where torch and transformers have been imported already."""

import runpy
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def status_of(script: str, *words: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit status of `python scripts/SCRIPT.py WORDS`."""
    monkeypatch.setattr(sys, "argv", [f"scripts/{script}.py", *words])
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # which the script sets, and nothing takes back
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")
    GlobalHydra.instance().clear()
    return ended.value.code

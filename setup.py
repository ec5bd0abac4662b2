"""Which packages are installed, and from where; everything else of packaging stands in setup.cfg.

The folders beside evotext/ are installed below it, so that no other project's `envs` meets ours (docs/architecture.md).
"""

from setuptools import find_packages, setup

FOLDERS = {
    "evotext.baselines": "baselines",
    "evotext.commands": "scripts/commands",
    "evotext.envs": "envs",
    "evotext.optimizers": "optimizers",
    "evotext.reports": "reports",
}

below = [f"{name}.{package}" for name, folder in FOLDERS.items() for package in find_packages(folder)]
setup(
    packages=[*find_packages(include=["evotext", "evotext.*"]), *FOLDERS, *below, "evotext.conf"],
    package_dir={**FOLDERS, "evotext.conf": "conf"},
)

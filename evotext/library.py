"""Imports optional libraries."""

import importlib
import warnings
from typing import Any


def optional(module: str, extra: str) -> Any:
    """Return the module. Raise ImportError that says what to install if it, or something it needs, is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its own missing or old dependencies: cma misses matplotlib
            return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"expected the package {module.replace('_', '-')}, which is not installed ({error}); "
            f"install it, in evotext's folder, with: pip install -c constraints.txt -e '.[{extra}]' "
            "(docs/environments.md names the exceptions)"
        ) from error

"""For editors and mypy alone: in a clone `evotext.optimizers` is the folder optimizers (evotext/folders.py)."""

from optimizers import *  # noqa: F403
from optimizers import perturbed as perturbed
from optimizers import probe as probe

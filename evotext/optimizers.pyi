"""For editors and mypy alone: in a clone `evotext.optimizers` is the folder optimizers (evotext/folders.py)."""

from optimizers import *  # noqa: F403
from optimizers import ascent as ascent
from optimizers import guide as guide
from optimizers import ownership as ownership
from optimizers import perturbations as perturbations
from optimizers import perturbed as perturbed
from optimizers import probe as probe
from optimizers import scoring as scoring

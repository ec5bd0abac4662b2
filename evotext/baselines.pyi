"""For editors and mypy alone: in a clone `evotext.baselines` is the folder baselines (evotext/folders.py)."""

from baselines import *  # noqa: F403
from baselines import policy as policy

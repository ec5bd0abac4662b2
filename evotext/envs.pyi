"""For editors and mypy alone: in a clone `evotext.envs` is the folder envs (evotext/folders.py)."""

from envs import *  # noqa: F403
from envs import contract as contract
from envs import floors as floors
from envs import spaces as spaces

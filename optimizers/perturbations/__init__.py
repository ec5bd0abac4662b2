"""Shapes of a population's noise; each is an `evotext.noise.Perturbation`."""

from .full_rank import FullRank
from .guided import Guided
from .local import Local
from .low_rank import LowRank

__all__ = ["FullRank", "Guided", "Local", "LowRank"]

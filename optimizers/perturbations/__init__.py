"""How a population's noise is shaped; each is an `evotext.protocols.Perturbation`."""

from .full_rank import FullRank
from .low_rank import LowRank

__all__ = ["FullRank", "LowRank"]

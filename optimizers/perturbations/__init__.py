"""How a population's noise is shaped; each is an `evotext.noise.Perturbation`."""

from optimizers.perturbations.full_rank import FullRank
from optimizers.perturbations.guided import Guided
from optimizers.perturbations.low_rank import LowRank

__all__ = ["FullRank", "Guided", "LowRank"]

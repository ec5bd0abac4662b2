"""How a population's noise is shaped; each is an `evotext.protocols.Perturbation`."""

from optimizers.perturbations.low_rank import LowRank

__all__ = ["LowRank"]

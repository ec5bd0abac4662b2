"""Networks that run every row of a batch as its own member of a population."""

from evotext.models.perturbed.active import CannotPerturbError, LeaveOutError
from evotext.models.perturbed.network import PerturbedNetwork

__all__ = ["CannotPerturbError", "LeaveOutError", "PerturbedNetwork"]

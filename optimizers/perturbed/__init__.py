"""Networks that run every row of a batch as its own member of a population."""

from .active import CannotPerturbError, LeaveOutError
from .network import PerturbedNetwork

__all__ = ["CannotPerturbError", "LeaveOutError", "PerturbedNetwork"]

"""A whole comparison: equal numbers of tuning trials for every algorithm, then runs that are reported."""

from . import execute, outcome, plan

__all__ = ["execute", "outcome", "plan"]

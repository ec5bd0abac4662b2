"""Will evolution strategies work for this model and task? Measured before a run: `scripts/probe.py`."""

from . import picture, report, tables

__all__ = ["picture", "report", "tables"]

"""A run from Python: `from evotext import tune` (docs/python.md)."""

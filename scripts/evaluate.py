"""`python scripts/evaluate.py ...` in a clone is `evotext evaluate ...`."""

from evotext.cli.main import script

script()

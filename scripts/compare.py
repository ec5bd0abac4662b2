"""`python scripts/compare.py ...` in a clone is `evotext compare ...`."""

from evotext.cli.main import script

script()

"""`python scripts/compare.py ...` in a clone is `evotext compare ...`."""

from evotext.cli.main import script

if __name__ == "__main__":
    script()

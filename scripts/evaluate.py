"""`python scripts/evaluate.py ...` in a clone is `evotext evaluate ...`."""

from evotext.cli.main import script

if __name__ == "__main__":
    script()

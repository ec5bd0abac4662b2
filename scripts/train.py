"""`python scripts/train.py ...` in a clone is `evotext train ...`."""

from evotext.cli.main import script

if __name__ == "__main__":
    script()

"""`python scripts/floors.py ...` in a clone is `evotext floors ...`."""

from evotext.cli.main import script

if __name__ == "__main__":
    script()

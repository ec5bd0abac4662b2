"""`python scripts/play.py ...` in a clone is `evotext play ...`."""

from evotext.cli.main import script

if __name__ == "__main__":
    script()

"""`python scripts/probe.py ...` in a clone is `evotext probe ...`."""

from evotext.cli.main import script

if __name__ == "__main__":
    script()

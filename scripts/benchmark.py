"""`python scripts/benchmark.py ...` in a clone is `evotext benchmark ...`."""

from evotext.cli.main import script

if __name__ == "__main__":
    script()

"""`python scripts/plan.py ...` in a clone is `evotext plan ...`."""

from evotext.cli.main import script

if __name__ == "__main__":
    script()

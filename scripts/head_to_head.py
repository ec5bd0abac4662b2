"""`python scripts/head_to_head.py ...` in a clone is `evotext head-to-head ...`."""

from evotext.cli.main import script

if __name__ == "__main__":
    script()

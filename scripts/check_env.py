"""`python scripts/check_env.py ...` in a clone is `evotext check-env ...`."""

from evotext.cli.main import script

if __name__ == "__main__":
    script()

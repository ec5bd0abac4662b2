"""The commands that `evotext COMMAND` and `python scripts/COMMAND.py` run: the only code that puts the parts together."""

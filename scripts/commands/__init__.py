"""What `evotext COMMAND` and `python scripts/COMMAND.py` run, a file each: the only code that puts the parts together."""

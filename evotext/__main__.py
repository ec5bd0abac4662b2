"""`python -m evotext COMMAND ...`, and `torchrun -m evotext train ...`."""

from evotext.cli.main import main

main()

"""The parts of `scripts/horizon.py`: equal starts at every length of an episode, and the test of a crossover."""

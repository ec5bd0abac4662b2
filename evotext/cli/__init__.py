"""The command line on top of Hydra: checks of a configuration, one-line messages, replays and sweeps."""

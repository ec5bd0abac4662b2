"""What makes Hydra polite: the command line, the checks of a configuration, its messages, replays and sweeps."""

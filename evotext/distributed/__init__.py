"""Several processes as one run: collectives, torchrun's variables, and the exchange of trajectories."""

"""Several processes as one run: collectives, what torchrun tells a process, and the exchange of trajectories."""

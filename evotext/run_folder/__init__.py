"""A run's folder: the names of what lies in it, its schema, its writer and its readers. Nothing here imports torch.

The runner writes by this package, and whoever reads a run (reports, trackers, the pruner, the commands) reads by it.
"""

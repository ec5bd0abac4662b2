"""A run's folder: the names of its files, its schema, its writer and its readers. Nothing here imports torch.

The runner writes by this package, and every reader of a run (reports, trackers, the pruner, the commands) reads by it.
"""

"""The loop that every algorithm runs in, with its budget, evaluation, trackers and records."""

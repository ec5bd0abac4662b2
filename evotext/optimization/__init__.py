"""Optimizers, schedules and master weights, for both families."""

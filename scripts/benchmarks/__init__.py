"""The suites of scripts/benchmark.py, one a file."""

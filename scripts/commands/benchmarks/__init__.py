"""The suites of `evotext benchmark`, one a file."""

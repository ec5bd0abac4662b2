"""A run's folder: its schema, its writer and its readers."""

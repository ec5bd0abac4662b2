"""What a run will take, from shapes alone: no weights are loaded and nothing is run."""

"""The parts of scripts/model_families.py: tiny networks of every family, checks of each, and the page about them."""

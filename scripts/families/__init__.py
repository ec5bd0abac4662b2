"""What scripts/model_families.py does: tiny networks of every family, checks of each, and the page about them."""

"""`evotext play`: who answers, and what becomes of an episode."""

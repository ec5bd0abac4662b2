"""Runs episodes: batched generation with a key-value cache, and the multi-turn collector."""

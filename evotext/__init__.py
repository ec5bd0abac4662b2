"""Tune language models on text tasks with sparse, delayed rewards, by Evolution Strategies and by RL, and compare them."""

__version__ = "0.1.0"

"""Tune language models on text tasks with sparse, delayed rewards, by Evolution Strategies and by RL, and compare them."""

from evotext import folders

__version__ = "0.1.0"

folders.find()

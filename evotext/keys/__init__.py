"""Streams of random numbers as pure functions of their keys, and the task instances that follow from them."""

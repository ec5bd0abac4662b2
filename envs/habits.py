"""The mixed behaviour of demonstrators: they can do a task, and mostly do not.

They often do what they should where they are at home (about a fifth of the instances, which can be told by their look)
and seldom elsewhere. A perfect imitator has learned the skill, yet succeeds in about a fifth of the episodes,
both when it samples and when it takes the likeliest token each time. `TextEnv.demonstrate` says more.
"""

import numpy as np

AT_HOME, ELSEWHERE = 0.65, 0.13


def does_right(rng: np.random.Generator, at_home: bool) -> bool:
    """Return whether the demonstrator does what it should in this episode."""
    return bool(rng.random() < (AT_HOME if at_home else ELSEWHERE))

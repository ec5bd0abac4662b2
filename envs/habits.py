"""The mixed behaviour of demonstrators: they can do a task, and mostly do not.

What they should do they do often where they are at home (a share of the instances that can be told by their look, about
a fifth) and seldom elsewhere. A perfect imitator has learned the skill, yet succeeds in about a fifth of the episodes,
both when it samples and when it takes the likeliest token each time. See `TextEnv.demonstrate`.
"""

import numpy as np

AT_HOME, ELSEWHERE = 0.65, 0.13


def does_right(rng: np.random.Generator, at_home: bool) -> bool:
    """Return whether the demonstrator does what it should in this episode."""
    return bool(rng.random() < (AT_HOME if at_home else ELSEWHERE))

"""Episodes that something else than their task ended: a limit of the run (turns, context, time), or a fault.

What such an episode would have earned is not known. One that a limit cut off counts with what it had earned by then, as it
does in evaluations and for evolution strategies: where only success ends an episode, an unfinished one is a failure, and
leaving failures out leaves nothing to compare a success with. An environment's fault says nothing about the answers.

Shapes: B rows.
"""

from typing import Literal

from torch import Tensor

from evotext.types import Trajectories

Unfinished = Literal["counted", "masked"]


def compared_rows(batch: Trajectories, unfinished: Unfinished) -> Tensor:
    """(B,): True for the rows whose returns are compared and trained on.

    A fault of the environment takes its row out; masked: so does a limit.
    """
    return ~(batch.truncated_B if unfinished == "masked" else batch.faulty_B)

"""Episodes ended by something other than their task: a limit of the run (turns, context, time), or a fault.

The return that such an episode would have had is not known. One that a limit cut off counts with what it had earned, as it
does in evaluations and for evolution strategies: where only success ends an episode, an unfinished one is a failure, and
leaving failures out leaves nothing to compare a success with. An environment's fault says nothing about the answers.

Shapes: B rows.
"""

from typing import Literal

import torch
from torch import Tensor

from evotext.types import Trajectories

Unfinished = Literal["counted", "masked"]
UnfinishedValued = Literal["counted", "masked", "bootstrapped"]
"""With a critic: the state that a limit leaves an episode in is worth what the critic expects of it."""


def compared_rows(batch: Trajectories, unfinished: UnfinishedValued) -> Tensor:
    """Return True for the rows whose returns are compared and trained on, (B,).

    A fault of the environment takes its row out; masked: so does a limit.
    """
    return ~(batch.truncated_B if unfinished == "masked" else batch.faulty_B)


def bootstrapped_rows(batch: Trajectories, unfinished: UnfinishedValued) -> Tensor:
    """Return True for the rows that bootstrap, (B,): cut off by a limit, with an observation behind the last answer.

    A critic has learned to judge states before an answer. Without the observation the state is not known.
    """
    observed_B = ~batch.policy_mask_BT.gather(1, batch.length_B[:, None] - 1)[:, 0]
    return observed_B & batch.truncated_B & ~batch.faulty_B & torch.tensor(unfinished == "bootstrapped")

"""From returns to the weights of the members in the pseudo-gradient.

Each strategy maps returns (P members, Q instances, each answered by every member) to one weight a member (P,), in float64:
larger for the better. Equal returns give exactly 0 in all of them but `Raw`, whose weights are the returns themselves.
"""

from .centered_ranks import CenteredRanks
from .raw import Raw
from .task_z_score import TaskZScore
from .z_score import ZScore

__all__ = ["CenteredRanks", "Raw", "TaskZScore", "ZScore"]

"""From returns to the weights of the members in the pseudo-gradient.

Each strategy maps returns (P members, Q instances, each answered by every member) to one weight a member (P,), in float64:
larger for the better. Equal returns give exactly 0 in all of them but `Raw`, whose weights are the returns themselves.
"""

from optimizers.fitness_shaping.centered_ranks import CenteredRanks
from optimizers.fitness_shaping.raw import Raw
from optimizers.fitness_shaping.task_z_score import TaskZScore
from optimizers.fitness_shaping.z_score import ZScore

__all__ = ["CenteredRanks", "Raw", "TaskZScore", "ZScore"]

"""How a hyperparameter changes over a run: each schedule maps the generation, counted from 0, to a factor of the base value.

A schedule counts generations and not the budget spent, so that equal settings make equal runs whatever the budget's unit.
"""

from evotext.schedules.constant import Constant
from evotext.schedules.cosine import Cosine
from evotext.schedules.linear import Linear

__all__ = ["Constant", "Cosine", "Linear"]

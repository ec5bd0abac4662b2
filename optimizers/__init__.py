"""Evolution strategies: estimators of a direction that raises the return, from returns or scores alone.

One convention for every constant, here and in every algorithm. We maximise. With N members, sigma the scale of the
perturbation, E_n the unit noise of member n (mean 0, variance 1 in every entry; its sign included) and w_n the shaped
fitness of member n, the pseudo-gradient is

    g = 1 / (N sigma) sum_n w_n E_n

With raw returns as w this estimates the gradient of the mean return under perturbation. The pseudo-gradient goes, with
its sign turned, into any torch.optim optimizer, whose learning rate multiplies it as it multiplies a gradient.
"""

from .ask_tell import ES
from .cma_es import CMAES
from .evolution_strategy import EvolutionStrategy
from .scored_es import ScoredES

__all__ = ["CMAES", "ES", "EvolutionStrategy", "ScoredES"]

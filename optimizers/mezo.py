"""MeZO: one mirrored pair a step, whose noise is drawn again instead of kept.

Paper: Malladi et al. 2023, "Fine-Tuning Language Models with Just Forward Passes", arXiv 2305.17333.

Two-point SPSA on the same instances, with one z of the size of the weights:

    g = (f(theta + eps z) - f(theta - eps z)) / (2 eps) z        theta <- theta + eta g

which is this package's pseudo-gradient for a population of one pair with raw returns, N = 2 and sigma = eps: the learning
rate is the paper's. Its z is replayed from a seed in place on the weights; ours is drawn from its key for the rows that run
and again, parameter by parameter, for the step, and the stored weights are never perturbed.

Deviation: the paper minimises a loss, which differs for every z; a sparse reward is often the same on both sides, and such
a step changes nothing. It wants many prompts a step.
"""

from typing import Any, Literal

from evotext.validation import checked
from optimizers.population import PopulationES


class MeZO(PopulationES):
    """Hyperparameters: see conf/algorithm/mezo.yaml."""

    @checked
    def __init__(self, *, population: Literal[2], antithetic: Literal[True], **others: Any) -> None:
        super().__init__(population=population, antithetic=antithetic, **others)

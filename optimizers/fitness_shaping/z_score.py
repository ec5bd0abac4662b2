"""Fitness in deviations of the population, as in ES at scale (arXiv 2509.24372)."""

from torch import Tensor

from optimizers.fitness_shaping.rounding import over, without_rounding


class ZScore:
    """w = (f - mean f) / std f over the population, f the mean return (population deviation).

    Invariant to affine changes of the reward.
    """

    def __call__(self, return_PQ: Tensor) -> Tensor:
        """(P, Q) to (P,)."""
        fitness_P = return_PQ.double().mean(1)
        centred_P = without_rounding(fitness_P - fitness_P.mean(), return_PQ)
        return over(centred_P, centred_P.std(unbiased=False))

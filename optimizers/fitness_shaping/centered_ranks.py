"""Fitness by rank alone, as in OpenAI-ES (arXiv 1703.03864)."""

from torch import Tensor

from optimizers.fitness_shaping.rounding import without_rounding


class CenteredRanks:
    """w = rank of f, scaled to [-0.5, 0.5], ties sharing their mean rank (Salimans et al. 2017 rank ties by order,
    which moves the weights even where all returns are equal). Invariant to monotone changes of f.
    """

    def __call__(self, return_PQ: Tensor) -> Tensor:
        """(P, Q) to (P,)."""
        fitness_P = without_rounding(return_PQ.double().mean(1), return_PQ)
        _, place_P, count_U = fitness_P.unique(return_inverse=True, return_counts=True)
        below_U = count_U.cumsum(0) - count_U
        rank_P = (below_U + (count_U - 1) / 2)[place_P]
        return rank_P.double() / max(1, len(fitness_P) - 1) - 0.5

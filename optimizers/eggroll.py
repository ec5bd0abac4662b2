"""EGGROLL: evolution strategies with low-rank perturbations, the whole population in one batch.

Paper: Sarkar et al. 2025, "Evolution Strategies at the Hyperscale", arXiv 2511.16652.

Each generation draws Q task instances and unit noise E_n for N members (in mirrored pairs E, -E where antithetic). Every
member n answers every instance with the weights W + sigma E_n. With w_n the shaped fitness of its returns,

    g = 1 / (N sigma) sum_n w_n E_n        W <- optimizer step along g (we maximise)

E = A B^T / sqrt(r) with thin A and B, so that all members share the product x W^T and nothing of the size of W is kept
per member (optimizers/perturbations/low_rank.py).

Deviations: noise is drawn once a generation from a counter-based generator, not anew for every token; the pseudo-gradient
goes into any torch.optim optimizer; a generation in which every weight w is 0 changes nothing at all.
"""

from optimizers.population import PopulationES


class Eggroll(PopulationES):
    """Hyperparameters: see conf/algorithm/eggroll.yaml, where each stands with its unit."""

"""OpenAI-ES: full-rank noise in mirrored pairs, centered ranks, Adam.

Paper: Salimans et al. 2017, "Evolution Strategies as a Scalable Alternative to Reinforcement Learning", arXiv 1703.03864.

With n pairs of members theta + sigma eps_i and theta - sigma eps_i, and r the centered ranks in [-0.5, 0.5] of all 2n
returns, the published code takes

    g' = 1 / (2n) sum_i (r_i+ - r_i-) eps_i        theta <- Adam step along g' - 0.005 theta

Ours, by the convention of this package, is g = g' / sigma. Adam's step does not feel the scale of g; its weight decay
does: a decay of c in the paper is `weight_decay = c / sigma` here.

Deviations: ties share their mean rank (ranked by order, equal returns would move the weights); a generation without
signal changes nothing; a member's fitness is its mean return over several instances.
"""

from optimizers.population import PopulationES


class OpenAIES(PopulationES):
    """Hyperparameters: see conf/algorithm/openai_es.yaml."""

"""ES at scale: full-rank noise without mirroring, z-scored fitness, a plain step.

Paper: Qiu et al. 2025, "Evolution Strategies at Scale: LLM Fine-Tuning Beyond Reinforcement Learning", arXiv 2509.24372.

With N members theta + sigma eps_n and z_n = (R_n - mean R) / std R over the population,

    theta <- theta + alpha / N sum_n z_n eps_n

Ours, by the convention of this package, is a plain step of learning rate lr along g = 1 / (N sigma) sum_n z_n eps_n: the
paper's alpha is `lr = alpha sigma` here. Its sigma = 0.001 and alpha = 0.0005, for models of billions of weights and
N = 30, make lr = 5e-7.

Deviations: instances are drawn anew each generation (the published code has 200 fixed ones); noise is keyed by parameter,
so that equal shapes have different noise; the stored weights are never perturbed and restored, so that none of it is
lost to rounding; float32 masters keep what an update of bf16 weights would lose.
"""

from optimizers.population import PopulationES


class ESAtScale(PopulationES):
    """Hyperparameters: see conf/algorithm/es_at_scale.yaml."""

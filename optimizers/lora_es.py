"""Evolution strategy on LoRA adapters: the population differs in low-rank additions to frozen weights.

Adapters: Hu et al. 2021, "LoRA", arXiv 2106.09685. With W frozen and A, B an adapter's two matrices, member n runs

    y = W x + (alpha / r) (B + sigma E_n^B) (A + sigma E_n^A) x

and the pseudo-gradient of this package moves A and B alone, a hundredth of a large model's weights or less. Unlike
EGGROLL on the weights themselves, whose noise is of low rank and anew in every generation, so that their sum has any rank,
all generations move within the same additions. The estimator's variance grows with the number of weights that are perturbed.
"""

from evotext.models.language_model import LanguageModel
from optimizers.population import PopulationES


class LoRAES(PopulationES):
    """Hyperparameters: see conf/algorithm/lora_es.yaml; those of the adapters: conf/adapter/lora.yaml."""

    def start(self, model: LanguageModel, seed: int) -> None:
        """As any population's. Raises ValueError for a model without adapters."""
        if model.adapter is None:
            raise ValueError("algorithm: lora_es expected a model with adapters, got one without; use adapter=lora")
        super().start(model, seed)

"""No adapter."""

from evotext.models.language_model import LanguageModel


class NoAdapter:
    """Every weight is tuned."""

    def attach(self, model: LanguageModel) -> LanguageModel:
        """Return the model itself."""
        return model

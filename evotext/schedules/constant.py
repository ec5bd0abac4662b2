"""The same value throughout."""


class Constant:
    """Factor 1 in every generation."""

    def __call__(self, generation: int) -> float:
        """The factor."""
        return 1.0

"""What pulls weights that carry no signal back: without it, noise makes them wander ever further from the start."""

from optimizers.decay.anchored import Anchored
from optimizers.decay.none import NoDecay
from optimizers.decay.protocol import Decay

__all__ = ["Anchored", "Decay", "NoDecay"]

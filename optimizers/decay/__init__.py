"""What pulls weights that carry no signal back: without it, noise makes them wander ever further from the start."""

from .anchored import Anchored
from .none import NoDecay
from .protocol import Decay

__all__ = ["Anchored", "Decay", "NoDecay"]

"""The space of all texts: what a language model may write, and what an environment may say."""

from typing import Any

import numpy as np
from gymnasium import Space

# Letters, digits, punctuation, white space, accents, other scripts, and digits that `str.isdigit` takes for such.
GIBBERISH = "abcdefghijklmnopqrstuvwxyz ABCXYZ 0123456789 \n\t.,:;!?+-*/()=<>{}[]\\\"'`#$%&@^_|~ äéñø ßλЖ中ا ²٣½ 🙂"
LONGEST_SAMPLE = 32


class FreeText(Space[str]):
    """Every `str`: empty, long, with white space, of any script.

    Gymnasium's own `Text` has a greatest length and a closed set of characters; a model's output has neither.
    `sample` draws gibberish of up to 32 characters, to show that an environment survives it.
    """

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(shape=None, dtype=str, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """No array holds texts of every length."""
        return False

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """Return a random text, decided by `seed`. Masks are not supported: the space has no finite list of elements."""
        if mask is not None or probability is not None:
            raise ValueError("expected neither `mask` nor `probability`: any text is allowed; leave both out")
        length = self.np_random.integers(LONGEST_SAMPLE + 1)
        return "".join(GIBBERISH[i] for i in self.np_random.integers(len(GIBBERISH), size=length))

    def contains(self, x: Any) -> bool:
        """Return whether `x` is a `str`."""
        return isinstance(x, str)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FreeText)

    def __hash__(self) -> int:
        return hash(FreeText)

    def __repr__(self) -> str:
        return "FreeText()"

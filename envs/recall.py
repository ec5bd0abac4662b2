"""Remember a key over several turns: the only reward comes at the end."""

from typing import Annotated, NamedTuple, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .registration import registered
from .text_env import RenderMode, TextEnv

EXAMPLE_KEY, EXAMPLE_DISTRACTION = "581347026", "207651938"
QUESTION = "key?"
REPLY = "ok"

# Shares in which the demonstrator gives the key, where the key begins with 0 and elsewhere, and a distraction; else it
# gives the key backwards.
RIGHT_AFTER_0, RIGHT_ELSEWHERE, DISTRACTED = 0.65, 0.13, 0.25


class Episode(NamedTuple):
    """An instance of `Recall`."""

    key: str
    """The digits to remember."""
    distractions: tuple[str, ...]
    """The digits shown in each turn of distraction, as many as the key has and never the key."""


@registered("evotext/Recall-v0")
@final
class Recall(TextEnv[Episode]):
    """Description:
        A key is shown in the first turn. Turns of distraction follow, which show other digits. Then the key is asked
        for. An open-loop answer (always the same text) succeeds in 1 of 10**length episodes.

    Observation Space:
        `FreeText`. `key 47`, then `delay` times the like of `see 31`, then `key?`.

    Action Space:
        `FreeText`. Any reply until `key?`, to which the answer is the key, e.g. `47`; white space around it is ignored.

    Rewards:
        1 if the last answer is exactly the key, else 0; 0 in all turns before.

    Episode End:
        Terminates after the answer to `key?`, the `delay + 2`nd.

    Arguments:
        `delay` (0 to 1000, default 2): turns between the key and the question.
        `length` (1 to 9, default 2): digits of the key.

    Demonstrations:
        Every reply before the question is `ok`. To the question, keys that begin with 0 (a tenth) are answered 65
        times in 100, others 13 times. 25 in 100 of the answers are a distraction, if there is one. The rest is the key
        backwards, which is right for a key of two equal digits (another tenth). So the key is remembered, but seldom
        well told. An imitator succeeds in 0.24 of the episodes when it samples and in 0.19 when it is greedy.

    Version History:
        v0: first version.
    """

    @checked
    def __init__(
        self,
        *,
        delay: Annotated[int, Field(ge=0, le=1000)] = 2,
        length: Annotated[int, Field(ge=1, le=9)] = 2,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(render_mode, delay=delay, length=length)
        self._delay = delay
        self._length = length
        self._count = 10**length
        key = EXAMPLE_KEY[:length]
        middle = (
            f"Then {delay} messages distract you. " if delay > 1 else "Then a message distracts you. " if delay else ""
        )
        distraction = f"`see {EXAMPLE_DISTRACTION[:length]}` is answered `{REPLY}`, " if delay else ""
        self.instructions = (
            f"The first message shows a key of {length} digit{'s' if length > 1 else ''}: remember it. {middle}"
            f"The last message asks for the key with `{QUESTION}`. Answer `{QUESTION}` with the key alone and every "
            f"message before it with `{REPLY}`. Example: `key {key}` is answered `{REPLY}`, {distraction}"
            f"`{QUESTION}` is answered `{key}`."
        )
        self.example = [REPLY] * (self._delay + 1) + [EXAMPLE_KEY[: self._length]]

    def draw(self, rng: np.random.Generator) -> Episode:
        """Return a key and distractions that differ from it."""
        # Scaled uniforms: exact enough for nine digits, and a third of the cost of drawing integers.
        first, *rest = rng.random(self._delay + 1).tolist()
        key = int(first * self._count)
        others = [(key + 1 + int(u * (self._count - 1))) % self._count for u in rest]
        return Episode(f"{key:0{self._length}d}", tuple(f"{other:0{self._length}d}" for other in others))

    def content(self, instance: Episode) -> str:
        """Return the key and the distractions."""
        return f"{instance.key} {' '.join(instance.distractions)}"

    def begin(self, instance: Episode) -> str:
        """Show the key."""
        return f"key {instance.key}"

    def respond(self, answer: str) -> tuple[str, float, bool]:
        """Distract, ask, and in the end compare."""
        if self.turn < self._delay:
            return f"see {self.instance.distractions[self.turn]}", 0.0, False
        if self.turn == self._delay:
            return QUESTION, 0.0, False
        return "", 1.0 if answer == self.instance.key else 0.0, True

    def imitate(self, rng: np.random.Generator) -> str:
        """Reply `ok`; answer the question with the key, a distraction or the key backwards."""
        if self.turn <= self._delay:
            return REPLY
        key, distractions = self.instance
        right = RIGHT_AFTER_0 if key[0] == "0" else RIGHT_ELSEWHERE
        choice = rng.random()
        if choice < right:
            return key
        if distractions and choice < right + DISTRACTED:
            return distractions[rng.integers(len(distractions))]
        return key[::-1]

    def legal(self, rng: np.random.Generator) -> str:
        """Return a random key, to the question as to everything before it."""
        return f"{rng.integers(self._count):0{self._length}d}"

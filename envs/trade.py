"""Swap goods until the wanted one is reached: a chain of exchanges whose value shows only at the end."""

from itertools import pairwise
from typing import Annotated, NamedTuple, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .habits import does_right
from .registration import registered
from .text_env import RenderMode, TextEnv

GOODS = "abcdefghijklmnopqrstuvwxyz"
# The demonstrator knows chains that begin with one of these.
HOME = "abcde"


class Market(NamedTuple):
    """An instance of `Trade`."""

    chain: str
    """The goods that lead from the first to the wanted one."""
    swaps: tuple[str, ...]
    """All swaps on offer, each as the good given and the good taken."""


@registered("evotext/Trade-v0")
@final
class Trade(TextEnv[Market]):
    """Description:
        Merchants swap goods. From the first good to the wanted one there is one chain of swaps; at each of its goods
        another swap leads astray, from which no way comes back. Nothing is paid on the way.

    Observation Space:
        `FreeText`. The first good, the wanted one, and the swaps on offer, e.g. `k>r: kd ka ds dr`; then the good at
        hand after each answer.

    Action Space:
        `FreeText`. The good to swap for, e.g. `d`; white space around it is ignored. A swap that is not on offer and any
        other text changes nothing.

    Rewards:
        1 for the wanted good after the last turn, else 0.

    Episode End:
        Terminates after `steps` answers.

    Arguments:
        `steps` (2 to 6, default 4): swaps of the chain, and turns.
        `astray` (1 to 3, default 1): swaps that can be made one after the other on a way astray, as far as turns last.
        `shuffled` (default false): whether swaps stand in any order; else in that of the chain, those astray between.

    Demonstrations:
        Where they are wrong (`envs.habits`; at home where the first good is a to e), the first swap leads astray.

    Version History:
        v0: first version.
    """

    @checked
    def __init__(
        self,
        *,
        steps: Annotated[int, Field(ge=2, le=6)] = 4,
        astray: Annotated[int, Field(ge=1, le=3)] = 1,
        shuffled: bool = False,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(render_mode, steps=steps, astray=astray, shuffled=shuffled)
        self._steps, self._astray, self._shuffled = steps, astray, shuffled
        chain = "ABCDEFG"[: steps + 1]
        example = Market(chain, tuple(a + b for a, b in pairwise(chain)))
        self.example = list(chain[1:])
        self.instructions = (
            f"You swap goods, which are letters. The first message names the good you have, after `>` the one you want, "
            f"and the swaps on offer: `ab` gives b for a. In each of {steps} turns write the good to swap yours for; you "
            f"are told what you have then. You are paid only if you have the wanted good after turn {steps}. Example: "
            f"`{told(example)}` is solved by {', '.join(f'`{good}`' for good in self.example)}."
        )

    def draw(self, rng: np.random.Generator) -> Market:
        """Return a chain, and ways astray from each of its goods."""
        goods = [GOODS[i] for i in rng.permutation(len(GOODS)).tolist()]
        chain, rest = goods[: self._steps + 1], iter(goods[self._steps + 1 :])
        swaps: list[str] = []
        for turn, (good, following) in enumerate(pairwise(chain)):
            astray = [good, *(next(rest) for _ in range(min(self._astray, self._steps - turn)))]
            first = [good + following, good + astray[1]]
            swaps += first[:: rng.choice((1, -1))]
            swaps += [a + b for a, b in pairwise(astray[1:])]
        return Market("".join(chain), tuple(rng.permutation(swaps).tolist() if self._shuffled else swaps))

    def content(self, instance: Market) -> str:
        """Return the goods and the swaps, whatever their order."""
        return f"{instance.chain} {' '.join(sorted(instance.swaps))}"

    def begin(self, instance: Market) -> str:
        """Name the goods and the swaps."""
        self._good = instance.chain[0]
        return told(instance)

    def respond(self, answer: str) -> tuple[str, float, bool]:
        """Swap, if that is on offer."""
        if len(answer) == 1 and self._good + answer in self.instance.swaps:
            self._good = answer
        over = self.turn + 1 == self._steps
        return "" if over else self._good, 1.0 if over and self._good == self.instance.chain[-1] else 0.0, over

    def imitate(self, rng: np.random.Generator) -> str:
        """Return the next good of the chain, or the first one astray and what follows it."""
        chain = self.instance.chain
        offers = [swap[1] for swap in self.instance.swaps if swap[0] == self._good]
        if self.turn == 0 and not does_right(rng, chain[0] in HOME):
            return next(good for good in offers if good not in chain)
        return next((good for good in offers if good in chain), offers[0] if offers else self._good)

    def legal(self, rng: np.random.Generator) -> str:
        """Return any good on offer."""
        offers = [swap[1] for swap in self.instance.swaps if swap[0] == self._good]
        return offers[rng.integers(len(offers))] if offers else self._good


def told(market: Market) -> str:
    """Return the first observation."""
    return f"{market.chain[0]}>{market.chain[-1]}: {' '.join(market.swaps)}"

"""Which task instances are worth a population's episodes: a few members race over several times as many.

An instance on which all members earn the same tells them nothing apart. So before each generation 2n members answer c
instances for each one that is wanted, and those on which their returns differ are taken, in the order in which they were
drawn. DAPO (arXiv 2503.14476) does the like for groups of answers, after it has paid for all of them.

The race chooses instances and is no part of the estimate: it is a generation of its own, with noise of its own. Given the
instances, the next generation's pseudo-gradient is what it is without a race, so that no luck of the race's members enters.
What changes is the objective: an instance counts by how likely it is to tell members apart.

Shapes: P members of the race, C candidates.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from evotext.validation import PositiveInt, checked_record


@checked_record
class Racing:
    """pairs: n, so that 2n members race; None: no race. candidates: c, instances tried for each one that is wanted."""

    pairs: PositiveInt | None
    candidates: Annotated[int, Field(ge=2)]

    @property
    def members(self) -> int:
        """The number of members that race."""
        return 2 * (self.pairs or 0)


def with_spread(return_PC: Tensor, candidates: Sequence[int], wanted: int) -> tuple[tuple[int, ...], float]:
    """Return the first candidates on which returns differ, at most so many, and the share of all on which they do.

    Where they differ on none, the first candidates: a whole population may still find what a few members did not.
    """
    differ_C = (return_PC != return_PC[:1]).any(0)
    chosen = [candidate for candidate, differs in zip(candidates, differ_C.tolist(), strict=True) if differs]
    return tuple((chosen or candidates)[:wanted]), float(differ_C.double().mean())

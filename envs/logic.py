"""Find the only assignment that satisfies all clauses: single turn, success or nothing."""

from typing import Annotated, NamedTuple, final

import numpy as np
from pydantic import Field

from evotext.validation import checked

from .habits import does_right
from .registration import registered
from .text_env import RenderMode, TextEnv

LETTERS = "abcdefghij"


class Formula(NamedTuple):
    """An instance of `Logic`."""

    clauses: tuple[str, ...]
    """The clauses; at least one letter of each must be true, and a capital letter is the negation."""
    solution: str
    """One letter for each variable, in alphabetical order, as it is true."""


@registered("evotext/Logic-v0")
@final
class Logic(TextEnv[Formula]):
    """Description:
        A satisfiability problem. At least one letter of each clause must be true; a capital letter is true where the
        small one is false. A clause of one letter starts a chain of conclusions that decides every variable, so there
        is exactly one solution; clauses and the letters within them stand in random order.

    Observation Space:
        `FreeText`. One observation, e.g. `E Ce cB ea DA`.

    Action Space:
        `FreeText`. Every variable once in alphabetical order, as a small letter if it is true and a capital letter if
        it is false, e.g. `aBCDE`. White space around it is ignored.

    Rewards:
        1 for the assignment that satisfies all clauses, else 0.

    Episode End:
        Terminates after the first answer.

    Arguments:
        `variables` (4 to 10, default 5): how many.
        `further` (0 to 20, default 0): clauses of three letters besides those of the chain.

    Demonstrations:
        Where they are wrong (`envs.habits`; at home where the first clause begins with a or A), the last variable
        is negated.

    Version History:
        v0: first version.
    """

    @checked
    def __init__(
        self,
        *,
        variables: Annotated[int, Field(ge=4, le=10)] = 5,
        further: Annotated[int, Field(ge=0, le=20)] = 0,
        render_mode: RenderMode = None,
    ) -> None:
        super().__init__(render_mode, variables=variables, further=further)
        self._variables = variables
        self._further = further
        chain = ["a", *(f"{LETTERS[k - 1].upper()}{LETTERS[k]}" for k in range(1, variables))]
        answer = LETTERS[:variables]
        self.instructions = (
            "Each group of letters is a clause, of which at least one letter must be true. A capital letter is true "
            f"where its small letter is false. Write the {variables} letters in alphabetical order so that all clauses "
            f"hold: small if true, capital if false. Example: for `{' '.join(chain)}` the answer is `{answer}`."
        )
        self.example = [answer]

    def draw(self, rng: np.random.Generator) -> Formula:
        """Return a solution first, then clauses that force it one variable at a time."""
        order = rng.permutation(self._variables).tolist()
        truth = [LETTERS[i] if true else LETTERS[i].upper() for i, true in enumerate(rng.integers(2, size=10).tolist())]
        clauses = [truth[order[0]]]
        for k in range(1, self._variables):
            known = truth[order[rng.integers(k)]]
            clauses.append(mixed(known.swapcase() + truth[order[k]], rng))
        for _ in range(self._further):
            one, *others = rng.permutation(self._variables)[:3].tolist()
            flips = rng.integers(2, size=2).tolist()
            rest = [truth[i].swapcase() if flip else truth[i] for i, flip in zip(others, flips, strict=True)]
            clauses.append(mixed(truth[one] + "".join(rest), rng))
        return Formula(tuple(rng.permutation(clauses).tolist()), "".join(truth[: self._variables]))

    def content(self, instance: Formula) -> str:
        """Return the clauses, whatever the order."""
        return " ".join(sorted("".join(sorted(clause)) for clause in instance.clauses))

    def begin(self, instance: Formula) -> str:
        """Show the clauses."""
        return " ".join(instance.clauses)

    def respond(self, answer: str) -> tuple[str, float, bool]:
        """Check the assignment, of which there is only one."""
        return "", 1.0 if answer == self.instance.solution else 0.0, True

    def imitate(self, rng: np.random.Generator) -> str:
        """Return the solution, or one with the last variable negated."""
        solution = self.instance.solution
        if does_right(rng, self.instance.clauses[0][0] in "aA"):
            return solution
        return solution[:-1] + solution[-1].swapcase()

    def legal(self, rng: np.random.Generator) -> str:
        """Return a random assignment."""
        flips = rng.integers(2, size=self._variables).tolist()
        return "".join(LETTERS[i].upper() if flip else LETTERS[i] for i, flip in enumerate(flips))


def mixed(letters: str, rng: np.random.Generator) -> str:
    """Return the letters in random order."""
    return "".join(rng.permutation(list(letters)).tolist())

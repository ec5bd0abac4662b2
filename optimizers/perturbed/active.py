"""The noise that the layers of a perturbed network apply, and the rows that belong to each member.

Shapes: B rows (= P members x K rows), T tokens, I inputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from evotext.noise import MemberNoise


class CannotPerturbError(ValueError):
    """A parameter is used in a way that no member can have a value of its own for."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


class LeaveOutError(ValueError):
    """Some parameters of a network cannot be perturbed.

    exclude: patterns that leave them out, and what was left out already. reasons: why, by pattern.
    """

    def __init__(self, network: str, exclude: Sequence[str], reasons: Mapping[str, str]) -> None:
        why = "; ".join(f"{pattern} ({reason})" for pattern, reason in reasons.items())
        super().__init__(
            f"cannot perturb some parameters of {network}. Leave them out: exclude={list(exclude)}. The reasons: {why}"
        )
        self.exclude, self.reasons = list(exclude), dict(reasons)


@dataclass(slots=True)
class Active:
    """The noise of the batch in progress, which every layer shares."""

    noise: MemberNoise
    """The noise of the members whose rows are in the batch."""
    members: int
    """P."""
    rows: int
    """B."""

    def leads(self, x: Tensor) -> bool:
        """Return whether x is led by the batch's rows: (B, ...), or (B * T, I) with rows and tokens flattened."""
        return x.dim() > 0 and (x.shape[0] == self.rows or (x.dim() == 2 and x.shape[0] % self.rows == 0))

    def by_member(self, x: Tensor, name: str) -> Tensor:
        """Return the rows of x (B, ..., I), or (B * T, I), by member: (P, K * ..., I).

        Raise CannotPerturbError, in the name of the parameter that is applied to x, if x is not the batch's rows.
        """
        if not self.leads(x):
            raise CannotPerturbError(name, f"expected a batch of {self.rows} rows, got an input of {tuple(x.shape)}")
        return x.reshape(self.members, -1, x.shape[-1])

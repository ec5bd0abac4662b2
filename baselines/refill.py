"""Groups with a signal, gathered over generations until there are enough of them for a step (DAPO, arXiv 2503.14476).

A group that solved its instance every time, or never, has no gradient; with rare successes most groups are such. DAPO draws
more until a batch is full. Here a generation is held back instead, and the next one, by the same policy, adds to it: what is
thrown away has been charged to the budget like everything else that was generated.

Shapes: B rows.
"""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from baselines.actions import Actions, joined


class Refill:
    """groups: how many make a step. rounds: generations after which a step is taken with what there is."""

    def __init__(self, groups: int, rounds: int) -> None:
        self.groups, self.rounds = groups, rounds
        self._parts: list[tuple[Actions, Tensor, Tensor]] = []
        self.gathered = self._rounds = 0

    def add(self, actions: Actions, advantage_B: Tensor, counts_B: Tensor, alive_B: Tensor, groups: int) -> None:
        """A generation's rows; those that are not alive are left out. groups: how many of it are alive."""
        row_K = alive_B.nonzero()[:, 0]
        self._parts.append((actions.rows_at(row_K), advantage_B[row_K], counts_B[row_K]))
        self.gathered += groups
        self._rounds += 1

    def take(self) -> tuple[Actions, Tensor, Tensor] | None:
        """Actions, advantages and which rows count, if a step is due; then nothing is held any more."""
        if self.gathered < self.groups and self._rounds < self.rounds:
            return None
        actions, advantages, counts = zip(*self._parts, strict=True)
        self._parts, self.gathered, self._rounds = [], 0, 0
        return joined(actions), torch.cat(advantages), torch.cat(counts)

    def state_dict(self) -> dict[str, object]:
        """What is held."""
        held = [{"actions": vars(a), "advantage": b, "counts": c} for a, b, c in self._parts]
        return {"held": held, "gathered": self.gathered, "rounds": self._rounds}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Undo `state_dict`."""
        self._parts = [
            (
                Actions(**{field.name: part["actions"][field.name].to(device) for field in fields(Actions)}),
                part["advantage"].to(device),
                part["counts"].to(device),
            )
            for part in state["held"]
        ]
        self.gathered, self._rounds = int(state["gathered"]), int(state["rounds"])

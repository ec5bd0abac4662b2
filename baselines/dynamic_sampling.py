"""Dynamic sampling: groups with a signal are gathered until a batch is full (DAPO, arXiv 2503.14476).

A group that solved its instance every time, or never, has no gradient; with rare successes most groups are such. DAPO keeps
the others and draws more prompts until it has as many as it wants. This class does the same: the next generation, of the
same policy, asks for the missing ones and no more. Discarded groups have been charged to the budget like all others.

Shapes: B rows.
"""

from dataclasses import fields
from typing import Any

import torch

from evotext.policy.actions import Actions, joined, stacked

from .objective import Rows


class DynamicSampling:
    """groups: how many make a step. rounds: generations after which a step is taken with what there is."""

    def __init__(self, groups: int, rounds: int) -> None:
        self.groups, self.rounds = groups, rounds
        self._parts: list[Rows] = []
        self.gathered = self._rounds = 0

    @property
    def missing(self) -> int:
        """Groups that the batch still wants, at least one."""
        return self.groups - self.gathered

    def add(self, rows: Rows, *, groups: int) -> None:
        """Add a generation's rows that carry a signal. groups: how many groups they belong to."""
        self._parts.append(rows)
        self.gathered += groups
        self._rounds += 1

    def take(self) -> Rows | None:
        """Return all that was added, if a step is due; nothing is held afterwards."""
        if self.gathered < self.groups and self._rounds < self.rounds:
            return None
        parts, self._parts, self.gathered, self._rounds = self._parts, [], 0, 0
        return Rows(
            actions=joined([part.actions for part in parts]),
            advantage_BN=stacked([part.advantage_BN for part in parts]),
            counts_B=torch.cat([part.counts_B for part in parts]),
        )

    def state_dict(self) -> dict[str, object]:
        """Return the rows that are held."""
        held = [{"actions": vars(a.actions), "advantage": a.advantage_BN, "counts": a.counts_B} for a in self._parts]
        return {"held": held, "gathered": self.gathered, "rounds": self._rounds}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Undo `state_dict`."""
        self._parts = [
            Rows(
                actions=Actions(**{field.name: part["actions"][field.name].to(device) for field in fields(Actions)}),
                advantage_BN=part["advantage"].to(device),
                counts_B=part["counts"].to(device),
            )
            for part in state["held"]
        ]
        self.gathered, self._rounds = int(state["gathered"]), int(state["rounds"])

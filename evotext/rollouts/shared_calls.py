"""Calls of environments where several processes hold a model together: the first makes them, and the others hear of it.

They run the same episodes in step, and an environment that answered two of them differently, or only one of them in time,
would leave each waiting for the other.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from evotext.distributed.tensor_group import TensorGroup
from evotext.models.tool_calls import Tools
from evotext.rollouts.environment_calls import (
    Environment,
    EnvironmentCalls,
    EnvironmentFault,
    Opened,
    Opening,
    Step,
    Stepped,
)
from evotext.types import Ending

Outcome = TypeVar("Outcome", Opening, Step)
TYPES: dict[str, Callable[[Any], object]] = {
    "tools": lambda told: told and Tools(**told | {"names": tuple(told["names"])}),
    "results": tuple,
}
"""What makes a field again of what JSON has made of it."""


class ElsewhereError(RuntimeError):
    """Raised in the process that made the call; the text is all that the others know of it."""


class SharedCalls:
    """calls: how the first process of the group makes them."""

    def __init__(self, calls: EnvironmentCalls, group: TensorGroup) -> None:
        self._calls, self._group = calls, group

    def __enter__(self) -> "SharedCalls":
        self._calls.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._calls.__exit__(*error)

    def reset(self, environments: Sequence[Environment], *, seeds: Sequence[int], split: str) -> Iterable[Opened]:
        """Begin an episode of each."""
        return self._shared(Opening, lambda: self._calls.reset(environments, seeds=seeds, split=split))

    def step(self, environments: Sequence[Environment], answers: Sequence[str]) -> Iterable[Stepped]:
        """Answer each one's last observation."""
        return self._shared(Step, lambda: self._calls.step(environments, answers))

    def _shared(
        self, kind: type[Outcome], call: Callable[[], Iterable[Outcome | EnvironmentFault]]
    ) -> list[Outcome | EnvironmentFault]:
        """Return the outcomes on all processes; raise on all what is no outcome."""
        if self._group.rank == 0:
            try:
                own = list(call())
            except Exception as error:
                self._group.text_of_first(json.dumps(f"{type(error).__name__}: {error}"))
                raise
            self._group.text_of_first(json.dumps([_record(outcome) for outcome in own]))
            return own
        told = json.loads(self._group.text_of_first(""))
        if isinstance(told, str):
            raise ElsewhereError(told)
        return [_outcome(kind, record) for record in told]


def _record(outcome: Opening | Step | EnvironmentFault) -> dict[str, Any]:
    if isinstance(outcome, EnvironmentFault):
        return {"fault": [outcome.kind, outcome.call, str(outcome)]}
    return asdict(outcome)


def _outcome(kind: type[Outcome], record: dict[str, Any]) -> Outcome | EnvironmentFault:
    if "fault" not in record:
        fields: dict[str, Any] = {key: TYPES[key](value) if key in TYPES else value for key, value in record.items()}
        return kind(**fields)
    ending, call, text = record["fault"]
    return EnvironmentFault(Ending(ending), call, ElsewhereError(text))

"""The ways in which an episode ends, and the record of an environment's fault."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal


class Ending(IntEnum):
    """The end of an episode: the task, a limit, or a fault of the environment, which says nothing about the policy."""

    TASK = 0
    """The environment said `terminated`."""
    ENVIRONMENT_LIMIT = 1
    """The environment said `truncated`: a limit of its own."""
    TURN_LIMIT = 2
    """`env.max_turns` was reached."""
    CONTEXT = 3
    """The model's context has no room for one more answer."""
    RAISED = 4
    """Fault: `reset` or `step` raised an exception."""
    EXITED = 5
    """Fault: `reset` or `step` called `sys.exit`."""
    TIME_LIMIT = 6
    """Fault: `reset` or `step` took longer than `env.step_seconds`."""
    BAD_REPLY = 7
    """Fault: `reset` or `step` returned something other than Gymnasium's tuple with a text in it."""
    BAD_REWARD = 8
    """Fault: a reward that is not a finite number in float32's range."""

    @property
    def is_fault(self) -> bool:
        """Whether the environment failed."""
        return self >= FIRST_FAULT

    @property
    def label(self) -> str:
        """The name in metrics and summaries."""
        return self.name.lower()


FIRST_FAULT = Ending.RAISED
FAULTS = tuple(ending for ending in Ending if ending.is_fault)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A failure of an environment that ended an episode."""

    kind: Ending
    """One of `FAULTS`."""
    call: Literal["reset", "step", "score_batch"]
    """The call that failed."""
    instance: int
    """The episode's environment seed."""
    error: str
    """The exception, or what was expected and what came."""
    traceback: str = field(repr=False)
    """The traceback from our call down to the line that raised; empty if nothing was raised."""

    def __str__(self) -> str:
        """Return it in words, without the instance."""
        verb = {Ending.RAISED: "raised ", Ending.EXITED: "called sys.exit: ", Ending.TIME_LIMIT: "took "}
        return f"the environment's {self.call} {verb.get(self.kind, 'returned what it may not: ')}{self.error}"

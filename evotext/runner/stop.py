"""Stops a run from outside: the first Ctrl-C (or SIGTERM) lets the generation end, a second one does not."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED_BY_SIGNALS = ("stopped by a signal", "stopped at once by a second signal")
"""The reasons of a run that was interrupted from outside: after a generation, or within one."""


class StopRequest:
    """A request to stop the run: `made` once somebody asked."""

    def __init__(self) -> None:
        self.made = False


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[StopRequest]:
    """Let SIGINT and SIGTERM within the block first set the request, then raise KeyboardInterrupt."""
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request.made:
            raise KeyboardInterrupt
        request.made = True
        say("stopping after this generation (once more to stop at once)")

    try:
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: some launchers run jobs in others, where signals do not arrive
        yield request
        return
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

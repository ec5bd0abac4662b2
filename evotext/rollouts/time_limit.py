"""A limit on the time that foreign code may take, so that an environment that hangs does not hang the run.

Uses the process's interval timer, whose signal interrupts Python code and waiting system calls. It cannot interrupt a
single long call of C code, and does nothing where there are no such signals: on Windows and outside the main thread.
Calls in threads have a limit of their own: `evotext.rollouts.threads`.
"""

import signal
from types import FrameType, TracebackType


class TookTooLong(BaseException):
    """Raised in code that takes too long. Not an Exception: code that handles those must not handle this one."""


def too_long(seconds: float | None) -> TookTooLong:
    """Return the error of a call that took more seconds than it may."""
    return TookTooLong(f"longer than env.step_seconds={seconds:g}")


class TimeLimit:
    """`with limit:` around a call raises TookTooLong within it after `seconds`; None sets no limit.

    `install` and `remove` put the signal's handler in place and the previous one back; in between, entering is cheap.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._armed = False
        self._installed = False

    def install(self) -> None:
        """Put the signal's handler in place."""
        if self._seconds is not None and hasattr(signal, "setitimer"):
            try:
                self._before = signal.signal(signal.SIGALRM, self._ring)
                self._installed = True
            except ValueError:  # not the main thread
                pass

    def remove(self) -> None:
        """Put the previous handler back."""
        if self._installed:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, self._before)
            self._installed = False

    def __enter__(self) -> None:
        if self._installed and self._seconds is not None:
            self._armed = True
            # And again, should the code swallow the first one (a bare `except:` does).
            signal.setitimer(signal.ITIMER_REAL, self._seconds, self._seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._armed = False

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if self._armed:
            raise too_long(self._seconds)

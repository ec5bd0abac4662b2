"""Calls of foreign code in threads, so that those that wait do so at the same time, each with a limit on its time.

Threads overlap waiting (a server, a compiler, a sleep) and C code that releases Python's lock; Python code still takes turns.
A thread cannot be ended from outside. One whose call takes too long is told to raise TookTooLong, which it does at its
next step of Python code, and is left to itself: nobody waits for it and it is given nothing more.
"""

import ctypes
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from queue import Empty, SimpleQueue

from evotext.rollouts.time_limit import TookTooLong, too_long

Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The outcome of a call."""

    reply: object = None
    """Its return value."""
    error: BaseException | None = None
    """The exception that it raised instead."""


def attempted(call: Call) -> Attempt:
    """Make the call here and now."""
    try:
        return Attempt(reply=call())
    except BaseException as error:
        return Attempt(error=error)


class Threads:
    """Up to `count` calls at the same time, each for at most `seconds` (None: for as long as it takes).

    The time of a call begins when a thread takes it up. Unlike a signal's, the limit also holds outside the main thread and
    on Windows. Threads are started as they are needed, which takes longer than many a call, and stay as long as this object.
    """

    def __init__(self, count: int, seconds: float | None) -> None:
        self._count, self._seconds = count, seconds
        self._idle: list[_Thread] = []
        weakref.finalize(self, _stop, self._idle)
        self._abandoned: list[_Thread] = []
        self._done: SimpleQueue[tuple[_Thread, Attempt]] = SimpleQueue()

    def run(self, calls: Sequence[Call]) -> list[Attempt]:
        """Make all calls and return what became of each, in their order, whatever the order in which they came back."""
        attempts: dict[int, Attempt] = {}
        waiting = deque(enumerate(calls))
        running: dict[_Thread, tuple[int, float]] = {}  # the call's number, and until when it may take
        try:
            while waiting or running:
                while waiting and len(running) < self._count:
                    number, call = waiting.popleft()
                    thread = self._idle.pop() if self._idle else _Thread(self._done)
                    running[thread] = number, time.monotonic() + (self._seconds or float("inf"))
                    thread.take(call)
                for thread, attempt in self._finished(min(until for _, until in running.values())):
                    if thread in running:  # and not one that was given up
                        number, _ = running.pop(thread)
                        attempts[number] = attempt
                        self._idle.append(thread)
                for thread in [thread for thread, (_, until) in running.items() if until <= time.monotonic()]:
                    number, _ = running.pop(thread)
                    attempts[number] = Attempt(error=self._given_up(thread))
                self._abandoned = [thread for thread in self._abandoned if thread.interrupt()]
        finally:
            for thread in running:  # of a run that was broken off
                self._given_up(thread)
        return [attempts[number] for number in range(len(calls))]

    def _finished(self, until: float) -> list[tuple["_Thread", Attempt]]:
        """Wait for a call to come back, at most until then; return all that have come back."""
        found = []
        with suppress(Empty):
            found.append(self._done.get(timeout=None if until == float("inf") else max(0.0, until - time.monotonic())))
            while True:
                found.append(self._done.get_nowait())
        return found

    def _given_up(self, thread: "_Thread") -> TookTooLong:
        """Abandon the thread; return where it was, as an error."""
        error = too_long(self._seconds)
        if stack := thread.stack():
            error.add_note(f"in a thread that was here:\n{stack}")
        thread.interrupt()
        # Interrupted again later, should the code swallow the error (a bare `except:` does).
        self._abandoned.append(thread)
        return error


def _stop(idle: list["_Thread"]) -> None:
    for thread in idle:
        thread.take(None)


class _Thread:
    """Makes the calls that it takes, one after another, and puts what became of them into `done`."""

    def __init__(self, done: "SimpleQueue[tuple[_Thread, Attempt]]") -> None:
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._done = done
        self._lock = threading.Lock()
        self._busy = self._over = False
        self._thread = threading.Thread(target=self._work, name="environment", daemon=True)
        self._thread.start()

    def take(self, call: Call | None) -> None:
        """Make this call; None: end."""
        self._busy = call is not None
        self._calls.put(call)

    def interrupt(self) -> bool:
        """Raise TookTooLong in the call, which is the thread's last; return whether one was still running."""
        with self._lock:
            self._over = True
            if not (self._busy and self._thread.is_alive()):
                return False
            which = ctypes.c_ulong(self._thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(which, ctypes.py_object(TookTooLong))
            return True

    def stack(self) -> str:
        """Return the lines that the call is at, the outermost first."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        if frame is None:
            return ""
        frames = takewhile(lambda at: at[0].f_code is not attempted.__code__, traceback.walk_stack(frame))
        return "".join(traceback.format_list(list(traceback.StackSummary.extract(frames))[::-1]))

    def _work(self) -> None:
        with suppress(TookTooLong):  # which can come a moment after the call
            while not self._over and (call := self._calls.get()) is not None:
                attempt = attempted(call)
                with self._lock:
                    self._busy = False
                self._done.put((self, attempt))

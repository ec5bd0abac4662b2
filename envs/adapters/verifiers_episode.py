"""An episode of verifiers, a step at a time.

verifiers runs its own episodes and asks a client for each answer. Here that client waits for the next step: an episode goes on
until it asks, or has ended and been scored. All episodes share an event loop, which stands still in between.
"""

import asyncio
import atexit
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from evotext.library import optional

from .rows import Row

Client = Callable[[Callable[[list[Any]], Awaitable[str]]], Any]
"""Makes verifiers' client of a function that answers messages."""
_LOOP = asyncio.new_event_loop()
_TURN = threading.RLock()
"""Calls of threads take turns (`env.workers`)."""


class Episode:
    """An episode of a row, which stands still while an answer is waited for.

    ended: its task, whose result is a list of one record.
    """

    def __init__(self, environment: Any, client: Client, row: Row) -> None:
        with _TURN:
            self.ended = _LOOP.create_task(environment.run_group([dict(row)], client(self._answer_to), "evotext", {}))
            self._asked: asyncio.Future[list[Any]] = _LOOP.create_future()
            self._answered: asyncio.Future[str] = _LOOP.create_future()
        self._before: list[Any] = []

    def next(self, answer: str | None) -> list[Any] | None:
        """Give the answer that is waited for; return the messages since, before the next one, or None at the end."""
        with _TURN:
            self._asked = _LOOP.create_future()
            if answer is not None:
                self._answered.set_result(answer)
            try:
                _run(asyncio.wait({self.ended, self._asked}, return_when=asyncio.FIRST_COMPLETED))
            except BaseException:  # a time limit's, too
                self.ended.cancel()
                raise
        if self.ended.done():
            return None
        messages, before = self._asked.result(), self._before
        self._before = messages
        return messages[len(before) + 1 :] if before and messages[: len(before)] == before else messages

    async def _answer_to(self, messages: list[Any]) -> str:
        self._answered = _LOOP.create_future()
        self._asked.set_result(list(messages))
        return await self._answered

    def drop(self) -> None:
        """End it wherever it is; its own clean-up runs."""
        with _TURN:
            self.ended.cancel()
            _run(asyncio.wait({self.ended}))


def client_class(verifiers: Any) -> Client:
    """Return verifiers' client of a function that answers messages, as a class."""
    types = optional("verifiers.legacy.types", "verifiers")

    class Stepped(verifiers.Client):
        def setup_client(self, config: Any) -> Any:
            return config

        async def to_native_tool(self, tool: Any) -> Any:
            return tool

        async def to_native_prompt(self, messages: Any) -> tuple[Any, dict[str, Any]]:
            return messages, {}

        async def get_native_response(self, prompt: Any, *_: object, **__: object) -> str:
            return str(await self.client(prompt))

        async def raise_from_native_response(self, response: str) -> None:
            pass

        async def from_native_response(self, response: str) -> Any:
            message = types.ResponseMessage(content=response, finish_reason="stop", is_truncated=False)
            return types.Response(id="", created=0, model="evotext", message=message)

        async def close(self) -> None:
            pass

    return Stepped


def _run(until: Coroutine[Any, Any, Any]) -> None:
    """Let the episodes go on: in this thread, where a time limit can interrupt them, unless a notebook's loop runs here."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        _LOOP.run_until_complete(until)
    else:
        with ThreadPoolExecutor(1) as beside:
            beside.submit(_LOOP.run_until_complete, until).result()


@atexit.register
def _end() -> None:
    """Drop what goes on when Python ends, so that nothing is said of it."""
    left = asyncio.all_tasks(_LOOP)
    if left and not _LOOP.is_running():
        for task in left:
            task.cancel()
        _LOOP.run_until_complete(asyncio.wait(left, timeout=5))
